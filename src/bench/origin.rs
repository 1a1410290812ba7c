//! The backend that the load goes to: as little work as a backend can do, on one thread, since it
//! shares its cores with the load.

use std::{
    future::Future,
    io::{self, Write},
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use bytes::Buf;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::sleep,
};

use super::job::Addresses;
use crate::shutdown::Tasks;

/// Listens, on ports of loopback that the kernel chooses, and serves until the tasks end.
///
/// # Errors
///
/// When a port cannot be bound.
pub(crate) async fn serve(tasks: &Tasks) -> io::Result<Addresses> {
    let block: Arc<[u8]> = (0..=u8::MAX).cycle().take(BLOCK).collect();
    let (small, large) = (Arc::clone(&block), block);
    Ok(Addresses {
        http: accept(tasks, move |stream| http(stream, Arc::clone(&small))).await?,
        sink: accept(tasks, sink).await?,
        source: accept(tasks, move |stream| source(stream, Arc::clone(&large))).await?,
        echo: accept(tasks, echo).await?,
    })
}

async fn accept<H, F>(tasks: &Tasks, handle: H) -> io::Result<SocketAddr>
where
    H: Fn(TcpStream) -> F + Send + 'static,
    F: Future<Output = io::Result<()>> + Send + 'static,
{
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let address = listener.local_addr()?;
    let owner = tasks.clone();
    drop(tasks.spawn(async move {
        loop {
            let Ok((stream, _peer)) = listener.accept().await else {
                sleep(OUT_OF_DESCRIPTORS).await;
                continue;
            };
            // Small answers must not wait for the peer's acknowledgement.
            let _best_effort = stream.set_nodelay(true);
            let served = handle(stream);
            // A peer that breaks off ends its own connection; the load counts what it missed.
            drop(owner.spawn(async move { drop(served.await) }));
        }
    }));
    Ok(address)
}

/// HTTP/1.1 for gateways: heads to their empty line, bodies by their length, nothing else.
async fn http(mut stream: TcpStream, block: Arc<[u8]>) -> io::Result<()> {
    let mut buffer = vec![0; HEAD];
    let mut filled = 0;
    let mut head = Vec::with_capacity(128);
    loop {
        let request = loop {
            match Request::read(buffer.get(..filled).unwrap_or_default()) {
                Ok(Some(request)) => break request,
                Ok(None) if filled < buffer.len() => {}
                Ok(None) | Err(Malformed) => return stream.write_all(BAD_REQUEST).await,
            }
            match stream
                .read(buffer.get_mut(filled..).unwrap_or_default())
                .await?
            {
                0 => return Ok(()),
                count => filled += count,
            }
        };
        let here = request.body.min(filled - request.head);
        skip(&mut stream, request.body - here).await?;
        buffer.copy_within(request.head + here..filled, 0);
        filled -= request.head + here;

        head.clear();
        match request.answer {
            Some(size) => write!(head, "{OK}{size}\r\n\r\n")?,
            None => head.extend_from_slice(NOT_FOUND),
        }
        let size = request.answer.unwrap_or_default();
        send(&mut stream, &head, size, &block).await?;
        if request.last {
            return stream.shutdown().await;
        }
    }
}

/// Reads a number and sends so many bytes; again.
async fn source(mut stream: TcpStream, block: Arc<[u8]>) -> io::Result<()> {
    while let Some(size) = number(&mut stream).await? {
        send(&mut stream, &[], size, &block).await?;
    }
    stream.shutdown().await
}

/// Reads a number and so many bytes, and confirms the number; again.
async fn sink(mut stream: TcpStream) -> io::Result<()> {
    let mut buffer = vec![0; BLOCK];
    while let Some(size) = number(&mut stream).await? {
        let mut left = size;
        while left > 0 {
            let space = buffer.get_mut(..at_most(left)).unwrap_or_default();
            match stream.read(space).await? {
                0 => return Ok(()),
                count => left -= count as u64,
            }
        }
        stream.write_u64(size).await?;
    }
    stream.shutdown().await
}

/// Sends back what it reads.
async fn echo(mut stream: TcpStream) -> io::Result<()> {
    let mut buffer = [0; 4096];
    loop {
        match stream.read(&mut buffer).await? {
            0 => return stream.shutdown().await,
            count => {
                let bytes = buffer.get(..count).unwrap_or_default();
                stream.write_all(bytes).await?;
            }
        }
    }
}

/// Eight bytes, or the end of the connection in their place.
async fn number(stream: &mut TcpStream) -> io::Result<Option<u64>> {
    match stream.read_u64().await {
        Ok(number) => Ok(Some(number)),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
        Err(error) => Err(error),
    }
}

/// A head and so many bytes, the first of them in the head's own system call.
async fn send(stream: &mut TcpStream, head: &[u8], size: u64, block: &[u8]) -> io::Result<()> {
    let mut left = size;
    let mut head = head;
    while left > 0 || !head.is_empty() {
        let part = block.get(..at_most(left)).unwrap_or_default();
        left -= part.len() as u64;
        stream.write_all_buf(&mut Buf::chain(head, part)).await?;
        head = &[];
    }
    Ok(())
}

async fn skip(stream: &mut TcpStream, size: usize) -> io::Result<()> {
    let mut buffer = [0; 4096];
    let mut left = size;
    while left > 0 {
        let space = left.min(buffer.len());
        match stream
            .read(buffer.get_mut(..space).unwrap_or_default())
            .await?
        {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            count => left -= count,
        }
    }
    Ok(())
}

/// So many bytes, but no more than a block.
fn at_most(left: u64) -> usize {
    usize::try_from(left).map_or(BLOCK, |left| left.min(BLOCK))
}

/// What matters of a request.
#[derive(Debug, PartialEq, Eq)]
struct Request {
    /// Bytes of the head, with its empty line.
    head: usize,
    /// Bytes of the body after it.
    body: usize,
    /// Bytes of the answer; `None` when there is nothing by that name.
    answer: Option<u64>,
    /// The connection ends with the answer.
    last: bool,
}

/// Not a request that is understood here.
#[derive(Debug, PartialEq, Eq)]
struct Malformed;

impl Request {
    /// The first request in the buffer, when its head is whole.
    fn read(buffer: &[u8]) -> Result<Option<Self>, Malformed> {
        let Some(end) = buffer.windows(4).position(|four| four == b"\r\n\r\n") else {
            return Ok(None);
        };
        let head = str::from_utf8(buffer.get(..end).unwrap_or_default());
        let mut lines = head.map_err(|_binary| Malformed)?.split("\r\n");
        let mut words = lines.next().unwrap_or_default().split(' ');
        let (_method, path, version) = (words.next(), words.next(), words.next());
        if version != Some("HTTP/1.1") || words.next().is_some() {
            return Err(Malformed);
        }
        let mut request = Self {
            head: end + 4,
            body: 0,
            answer: size(path.unwrap_or_default()),
            last: false,
        };
        for line in lines {
            let (name, value) = line.split_once(':').ok_or(Malformed)?;
            let value = value.trim_matches([' ', '\t']);
            if name.eq_ignore_ascii_case("content-length") {
                request.body = value.parse().map_err(|_number| Malformed)?;
            } else if name.eq_ignore_ascii_case("transfer-encoding") {
                return Err(Malformed);
            } else if name.eq_ignore_ascii_case("connection") {
                request.last = value.eq_ignore_ascii_case("close");
            }
        }
        Ok(Some(request))
    }
}

/// How much a path stands for.
fn size(path: &str) -> Option<u64> {
    match path {
        "/1k" => Some(1024),
        path => path.strip_prefix("/bytes/")?.parse().ok(),
    }
}

const BAD_REQUEST: &[u8] =
    b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
/// As much as a gateway's largest buffer.
const BLOCK: usize = 256 * 1024;
const HEAD: usize = 16 * 1024;
const NOT_FOUND: &[u8] = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n";
const OK: &str = "HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\nContent-Length: ";
const OUT_OF_DESCRIPTORS: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_says_how_much_it_asks_for() {
        let bytes = b"GET /bytes/70000 HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc";

        let request = Request::read(bytes).unwrap().unwrap();

        assert_eq!(request.head, bytes.len() - 3);
        assert_eq!(request.body, 3);
        assert_eq!(request.answer, Some(70_000));
        assert!(!request.last);
    }

    #[test]
    fn half_a_head_is_waited_for() {
        assert_eq!(Request::read(b"GET /1k HTTP/1.1\r\nHost: a\r\n"), Ok(None));
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        for bytes in [
            "GET /1k HTTP/1.0\r\n\r\n",
            "GET /1k\r\n\r\n",
            "GET / 1k HTTP/1.1\r\n\r\n",
            "GET /1k HTTP/1.1\r\nHost\r\n\r\n",
            "PUT /1k HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n",
            "PUT /1k HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        ] {
            assert_eq!(Request::read(bytes.as_bytes()), Err(Malformed), "{bytes}");
        }
    }
}
