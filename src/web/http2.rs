//! One HTTP/2 connection: hyper speaks the protocol, and this keeps what it costs within limits.

use std::{
    convert::Infallible,
    future::{Future, poll_fn},
    pin::{Pin, pin},
    sync::Arc,
    task::Poll,
    time::Duration,
};

use http::{
    HeaderValue, Method, Request, Response, StatusCode,
    header::{CONTENT_LENGTH, EXPECT, HOST, TE},
    uri::Scheme,
};
use hyper::{body::Incoming, server::conn::http2::Builder, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::time::{Instant, sleep};
use tracing::debug;

pub use self::budget::Cut;
use self::{
    budget::{Executor, Streams, Verdict},
    payload::{Inbound, Outbound},
};
use super::{Answer, Body, Handler, Protocol, Refusal, Stream, head, headers};
use crate::{config::Limits, shutdown::Tasks, tls};

mod budget;
mod payload;

/// Serves one connection to its end.
pub(super) async fn serve<H: Handler>(
    stream: Box<tls::Stream>,
    limits: Arc<Limits>,
    tasks: &Tasks,
    handler: Arc<H>,
) {
    let tasks = tasks.of_connection();
    let streams = Arc::new(Streams::new(&limits));
    let executor = Executor::new(tasks.clone(), Arc::clone(&streams));
    let context = Arc::new(Context {
        handler,
        limits: Arc::clone(&limits),
        streams: Arc::clone(&streams),
        tasks: tasks.clone(),
    });
    let service = service_fn(move |request| {
        let context = Arc::clone(&context);
        async move { Ok::<_, Infallible>(context.answer(request).await) }
    });
    let (io, flusher) = stream.gathering();
    let connection = builder(&limits, executor).serve_connection(TokioIo::new(io), service);
    let mut driven = flusher.drive(connection);

    let mut drained = pin!(tasks.draining().cancelled());
    let mut timer = pin!(sleep(
        limits.head.min(limits.idle).min(limits.body_progress)
    ));
    let mut closing = false;
    poll_fn(|context| {
        loop {
            if let Poll::Ready(end) = Pin::new(&mut driven).poll(context) {
                if let Err(error) = end {
                    debug!(%error, "an HTTP/2 connection broke");
                }
                return Poll::Ready(());
            }
            if !closing && drained.as_mut().poll(context).is_ready() {
                closing = true;
                Pin::new(driven.connection()).graceful_shutdown();
                continue;
            }
            if streams.is_over_budget(context) {
                debug!("an HTTP/2 connection had too many streams reset");
                return Poll::Ready(());
            }
            if timer.as_mut().poll(context).is_pending() {
                return Poll::Pending;
            }
            match streams.judge(Instant::now()) {
                Verdict::LookAgain(at) => timer.as_mut().reset(at),
                // It had its time to say good-bye.
                Verdict::Idle if closing => return Poll::Ready(()),
                Verdict::Idle => {
                    closing = true;
                    Pin::new(driven.connection()).graceful_shutdown();
                    timer.as_mut().reset(Instant::now() + GOOD_BYE);
                }
            }
        }
    })
    .await;
}

fn builder(limits: &Limits, executor: Executor) -> Builder<Executor> {
    let mut builder = Builder::new(executor);
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(limits.h2_streams)
        .initial_stream_window_size(limits.h2_stream_window)
        .initial_connection_window_size(limits.h2_connection_window)
        .max_header_list_size(u32::try_from(limits.head_bytes).unwrap_or(u32::MAX))
        .max_pending_accept_reset_streams(limits.h2_resets.min(PENDING_RESETS))
        .max_local_error_reset_streams(limits.h2_resets)
        .max_send_buf_size(SEND_BUFFER)
        .keep_alive_interval(Some(limits.idle.max(PING_INTERVAL)))
        .keep_alive_timeout(PING_TIMEOUT)
        .enable_connect_protocol();
    builder
}

/// What the streams of one connection share.
struct Context<H> {
    handler: Arc<H>,
    limits: Arc<Limits>,
    streams: Arc<Streams>,
    tasks: Tasks,
}

impl<H: Handler> Context<H> {
    async fn answer(&self, mut request: Request<Incoming>) -> Response<Outbound> {
        let stream = self.streams.current();
        let connect = request.method() == Method::CONNECT;
        let head = request.method() == Method::HEAD;
        let upgrade = connect.then(|| hyper::upgrade::on(&mut request));
        let answer = match check(&mut request, &self.limits) {
            Err(refusal) => Answer::from(self.handler.refuse(&refusal)),
            Ok(()) => {
                let unfinished = stream.unfinished();
                let request = request.map(|body| Inbound::wrap(body, &self.limits, &self.tasks));
                let answer = self.handler.call(request).await;
                unfinished.finish();
                answer
            }
        };
        let Answer { response, then } = answer;
        let raw = response.status() == StatusCode::SWITCHING_PROTOCOLS
            || connect && response.status().is_success();
        let response = match (raw, upgrade, then) {
            (false, _, _) => response,
            (true, Some(upgrade), Some(then)) if connect && response.status().is_success() => {
                let lasting = self.streams.enter();
                let cut = Cut(Arc::clone(&stream));
                // The task is in the tracker, nobody needs its handle.
                drop(self.tasks.spawn(async move {
                    if let Ok(upgraded) = upgrade.await {
                        then(Stream::Http2(TokioIo::new(upgraded), Some(cut))).await;
                    }
                    drop(lasting);
                }));
                response.map(|_raw| Body::empty())
            }
            // Bytes after such a head would be raw, and nobody is there to take them (R18).
            (true, _, _) => self.handler.refuse(&super::NOT_TAKEN),
        };
        Outbound::wrap(response, head, stream)
    }
}

/// Refuses what hyper lets pass, and brings the head into the form that HTTP/1.1 has.
fn check(request: &mut Request<Incoming>, limits: &Limits) -> Result<(), Refusal> {
    let bad = |reason| Refusal {
        status: StatusCode::BAD_REQUEST,
        reason,
    };
    // Every crumb of a cookie counts: each is an allocation that a device gets for a byte (R27).
    if request.headers().len() > limits.head_fields {
        return Err(Refusal {
            status: StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            reason: "too many fields",
        });
    }
    let target = request.uri();
    let length = target.path().len() + target.query().map_or(0, str::len);
    if length > limits.target_bytes {
        return Err(Refusal {
            status: StatusCode::URI_TOO_LONG,
            reason: "request target too long",
        });
    }
    let printable = |text: &str| text.bytes().all(|byte| matches!(byte, 0x21..=0x7e));
    if !printable(target.path()) || !target.query().is_none_or(printable) {
        return Err(bad("invalid request target"));
    }
    if target
        .scheme()
        .is_some_and(|scheme| scheme != &Scheme::HTTPS && scheme != &Scheme::HTTP)
    {
        return Err(bad("unknown scheme"));
    }
    if !has_authority(request) {
        return Err(bad("not exactly one valid authority"));
    }
    let fields = request.headers();
    if fields.get_all(TE).iter().any(|te| te != "trailers") {
        return Err(bad("TE is not trailers"));
    }
    let mut lengths = fields.get_all(CONTENT_LENGTH).iter();
    let number = |length: &HeaderValue| head::decimal(length.as_bytes()).is_some();
    // It goes on as it is in HTTP/1.1, where a length that is no number ends in two framings.
    if !lengths.next().is_none_or(number) || lengths.next().is_some() {
        return Err(bad("Content-Length is not one number"));
    }
    if fields
        .get_all(EXPECT)
        .iter()
        .any(|value| !value.as_bytes().eq_ignore_ascii_case(b"100-continue"))
    {
        return Err(Refusal {
            status: StatusCode::EXPECTATION_FAILED,
            reason: "unknown expectation",
        });
    }
    headers::join_cookies(request.headers_mut());
    if let Some(protocol) = request.extensions_mut().remove::<hyper::ext::Protocol>() {
        request
            .extensions_mut()
            .insert(Protocol(protocol.as_str().into()));
    }
    Ok(())
}

/// One that is valid, and that `Host` does not contradict.
fn has_authority(request: &Request<Incoming>) -> bool {
    match request.uri().authority() {
        Some(authority) if !request.headers().contains_key(HOST) => {
            head::authority(authority.as_str().as_bytes())
                .is_some_and(|(host, port)| !host.is_empty() && port != Some(0))
        }
        _ => headers::authority_of(request).is_ok(),
    }
}

/// Streams that were reset before they were looked at: a good device has few (CVE-2023-44487).
const PENDING_RESETS: usize = 20;
/// Of one stream, until the device's window opens.
const SEND_BUFFER: usize = 64 * 1024;
const PING_INTERVAL: Duration = Duration::from_secs(20);
const PING_TIMEOUT: Duration = Duration::from_secs(20);
/// From a GOAWAY to the end, when nothing is in hand.
const GOOD_BYE: Duration = Duration::from_secs(3);

#[cfg(test)]
mod tests;
