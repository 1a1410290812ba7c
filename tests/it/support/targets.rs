//! What tunnels lead to, with habits that no ready-made server has.

use std::{
    io::ErrorKind,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

/// Does the same with every connection.
pub(crate) async fn serve<A, F>(act: A) -> SocketAddr
where
    A: Fn(TcpStream) -> F + Send + 'static,
    F: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(act(stream));
        }
    });
    address
}

/// Sends as long as anybody reads.
pub(crate) async fn flood() -> SocketAddr {
    serve(|mut stream| async move {
        let block = vec![0x5a; 1 << 16];
        while stream.write_all(&block).await.is_ok() {}
    })
    .await
}

/// Reads nothing, ever.
pub(crate) async fn deaf() -> SocketAddr {
    serve(|stream| async move {
        std::future::pending::<()>().await;
        drop(stream);
    })
    .await
}

/// At the end of what it gets, answers with its length.
pub(crate) async fn counting() -> SocketAddr {
    serve(|mut stream| async move {
        let mut got = Vec::new();
        stream.read_to_end(&mut got).await.unwrap();
        let count = got.len().to_string();
        stream.write_all(count.as_bytes()).await.unwrap();
    })
    .await
}

/// Says good bye, closes its half, and notes the length of what still comes.
pub(crate) async fn closing_first() -> (SocketAddr, Arc<Mutex<Option<usize>>>) {
    let received = Arc::new(Mutex::new(None));
    let notes = Arc::clone(&received);
    let address = serve(move |mut stream| {
        let notes = Arc::clone(&notes);
        async move {
            stream.write_all(b"good bye").await.unwrap();
            stream.shutdown().await.unwrap();
            let mut got = Vec::new();
            stream.read_to_end(&mut got).await.unwrap();
            *notes.lock().unwrap() = Some(got.len());
        }
    })
    .await;
    (address, received)
}

/// Resets as soon as something comes.
pub(crate) async fn resetting() -> SocketAddr {
    serve(|mut stream| async move {
        stream.read_u8().await.unwrap();
        socket2::SockRef::from(&stream)
            .set_linger(Some(Duration::ZERO))
            .unwrap();
    })
    .await
}

/// Reads, and notes how that ended.
pub(crate) async fn noting_its_end() -> (SocketAddr, Arc<Mutex<Option<Result<(), ErrorKind>>>>) {
    let ended = Arc::new(Mutex::new(None));
    let notes = Arc::clone(&ended);
    let address = serve(move |mut stream| {
        let notes = Arc::clone(&notes);
        async move {
            let end = stream.read_to_end(&mut Vec::new()).await;
            *notes.lock().unwrap() = Some(end.map(drop).map_err(|error| error.kind()));
        }
    })
    .await;
    (address, ended)
}
