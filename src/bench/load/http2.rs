//! HTTP/2: requests and tunnels side by side on one connection, with hyper's client.

use std::io;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, Uri, header};
use http_body_util::{BodyExt, Empty};
use hyper::{
    body::Incoming,
    client::conn::http2::{Builder, SendRequest},
};
use hyper_util::rt::TokioIo;

use super::{
    Run, Tally,
    wire::{Negotiated, Wire},
};
use crate::{
    bench::job::{Connect, Target, Work},
    shutdown::Tasks,
};

/// One stream after another; clones share the connection.
#[derive(Clone)]
pub(super) struct Client {
    sender: SendRequest<Empty<Bytes>>,
    pub(super) negotiated: Option<Negotiated>,
    uri: Uri,
    headers: HeaderMap,
    bulk: bool,
}

impl Client {
    /// Speaks HTTP/2 over a connection, which `tasks` drive.
    ///
    /// # Errors
    ///
    /// When the target's words cannot stand in a request.
    pub(super) async fn new(
        wire: Wire,
        target: &Target,
        work: Work,
        tasks: &Tasks,
    ) -> io::Result<Self> {
        let mut builder = Builder::new(tasks.clone());
        builder
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_send_buf_size(SEND_BUFFER);
        let opened = builder.handshake(TokioIo::new(wire.io)).await;
        let (sender, connection) = opened.map_err(io::Error::other)?;
        // Its streams tell how it ended.
        drop(tasks.spawn(async move { drop(connection.await) }));
        let mut headers = HeaderMap::new();
        for (name, value) in &target.headers {
            let name = HeaderName::try_from(name).map_err(io::Error::other)?;
            headers.append(
                name,
                HeaderValue::try_from(value).map_err(io::Error::other)?,
            );
        }
        let uri = Uri::builder()
            .scheme("https")
            .authority(&*target.host)
            .path_and_query(&*target.path);
        Ok(Self {
            sender,
            negotiated: wire.negotiated,
            // A tunnel has no path, and may be all that the target is for.
            uri: uri.build().unwrap_or_default(),
            headers,
            bulk: work == Work::Download,
        })
    }

    /// Requests one after another, until the run is over.
    pub(super) async fn run(&mut self, run: &Run, tally: &mut Tally) -> io::Result<()> {
        tally.negotiated = self.negotiated;
        run.repeat(self.bulk, tally, async || self.exchange().await)
            .await
    }

    /// A request and its whole answer: the bytes of its body, which HTTP/2 holds to what the
    /// answer says.
    pub(super) async fn exchange(&mut self) -> io::Result<u64> {
        let mut request = Request::new(Empty::new());
        request.uri_mut().clone_from(&self.uri);
        request.headers_mut().clone_from(&self.headers);
        let mut body = self.send(request).await?.into_body();
        let mut size = 0;
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(io::Error::other)?;
            size += frame.data_ref().map_or(0, Bytes::len) as u64;
        }
        Ok(size)
    }

    /// Opens a tunnel in a stream of its own.
    pub(super) async fn connect(&mut self, connect: &Connect) -> io::Result<Wire> {
        let mut request = Request::new(Empty::new());
        *request.method_mut() = Method::CONNECT;
        *request.uri_mut() = Uri::try_from(&connect.authority).map_err(io::Error::other)?;
        if let Some(value) = &connect.authorization {
            let value = HeaderValue::try_from(value).map_err(io::Error::other)?;
            request
                .headers_mut()
                .insert(header::PROXY_AUTHORIZATION, value);
        }
        let response = self.send(request).await?;
        let stream = hyper::upgrade::on(response).await;
        Ok(Wire {
            io: Box::new(TokioIo::new(stream.map_err(io::Error::other)?)),
            negotiated: self.negotiated,
            resumed: false,
        })
    }

    /// Whether the connection is still open.
    pub(super) fn is_open(&self) -> bool {
        !self.sender.is_closed()
    }

    async fn send(&mut self, request: Request<Empty<Bytes>>) -> io::Result<Response<Incoming>> {
        self.sender.ready().await.map_err(io::Error::other)?;
        let sent = self.sender.send_request(request).await;
        let response = sent.map_err(io::Error::other)?;
        if response.status().is_success() {
            return Ok(response);
        }
        Err(io::Error::other(format!("answered {}", response.status())))
    }
}

const CONNECTION_WINDOW: u32 = 256 * 1024 * 1024;
const SEND_BUFFER: usize = 1024 * 1024;
const STREAM_WINDOW: u32 = 16 * 1024 * 1024;
