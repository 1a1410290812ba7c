//! Bodies of HTTP/2 streams, with the limits that hyper does not know.

use std::{
    future::{Future, poll_fn},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{Response, StatusCode, header::CONTENT_LENGTH};
use http_body::{Body as _, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::{
    runtime::Handle,
    time::{Instant, Sleep, sleep, timeout},
};

use super::budget::{Progress, Unfinished};
use crate::{
    config::Limits,
    shutdown::Tasks,
    web::{Body, body::Error, headers},
};

/// The body of a request: fails when the device sends nothing for too long.
///
/// Dropped before its end, it reads on for a while: an early answer would otherwise come with a
/// reset of the stream, and some clients then throw the answer away (curl 7.88 does).
#[derive(Debug)]
pub(super) struct Inbound {
    /// Always there until the drop.
    body: Option<Incoming>,
    limit: Duration,
    drain_bytes: u64,
    tasks: Tasks,
    /// Made when the device is waited for the first time.
    timer: Option<Pin<Box<Sleep>>>,
    waiting: bool,
}

impl Inbound {
    /// As the body type of requests.
    pub(super) fn wrap(body: Incoming, limits: &Limits, tasks: &Tasks) -> Body {
        if body.is_end_stream() {
            return Body::empty();
        }
        Body::stream(Self {
            body: Some(body),
            limit: limits.body_progress,
            drain_bytes: limits.drain_bytes,
            tasks: tasks.clone(),
            timer: None,
            waiting: false,
        })
    }
}

impl http_body::Body for Inbound {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let this = &mut *self;
        let Some(body) = &mut this.body else {
            return Poll::Ready(None);
        };
        if let Poll::Ready(frame) = Pin::new(body).poll_frame(context) {
            this.waiting = false;
            return Poll::Ready(frame.map(|frame| match frame {
                Ok(frame) => Ok(clean(frame)),
                Err(error) => Err(Error::Device(Box::new(error))),
            }));
        }
        let limit = this.limit;
        let timer = this.timer.get_or_insert_with(|| Box::pin(sleep(limit)));
        if !this.waiting {
            this.waiting = true;
            timer.as_mut().reset(Instant::now() + limit);
        }
        timer
            .as_mut()
            .poll(context)
            .map(|()| Some(Err(Error::Slow(limit))))
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Incoming::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body
            .as_ref()
            .map_or_else(|| SizeHint::with_exact(0), Incoming::size_hint)
    }
}

impl Drop for Inbound {
    fn drop(&mut self) {
        let Some(body) = self.body.take().filter(|body| !body.is_end_stream()) else {
            return;
        };
        let left = self.drain_bytes;
        // More than that is not worth waiting for; and when the runtime ends, nothing is.
        if body.size_hint().lower() > left || Handle::try_current().is_err() {
            return;
        }
        drop(self.tasks.spawn(async move {
            let _complete = timeout(LINGER, drain(body, left)).await;
        }));
    }
}

/// Throws away what comes, up to so many bytes.
async fn drain(mut body: Incoming, mut left: u64) {
    while let Some(Ok(frame)) = poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await {
        let length = frame.data_ref().map_or(0, Bytes::len);
        match left.checked_sub(length as u64) {
            Some(rest) => left = rest,
            None => return,
        }
    }
}

/// For the rest of a request that was answered already.
const LINGER: Duration = Duration::from_secs(2);

fn clean(frame: Frame<Bytes>) -> Frame<Bytes> {
    match frame.into_trailers() {
        Ok(mut trailers) => {
            headers::clean_trailers(&mut trailers);
            Frame::trailers(trailers)
        }
        Err(frame) => frame,
    }
}

/// The body of an answer: tells its stream who waits for whom.
#[derive(Debug)]
pub(super) struct Outbound {
    body: Body,
    stream: Arc<Progress>,
    unfinished: Unfinished,
}

impl Outbound {
    /// The same answer with its body watched. An answer that has no body by its nature loses it:
    /// to `HEAD`, and with 204 and 304.
    pub(super) fn wrap(
        mut response: Response<Body>,
        head: bool,
        stream: Arc<Progress>,
    ) -> Response<Self> {
        let status = response.status();
        if head || status == StatusCode::NO_CONTENT || status == StatusCode::NOT_MODIFIED {
            let length = response
                .body()
                .size_hint()
                .exact()
                .filter(|&length| length > 0);
            if let Some(length) = length.filter(|_length| head) {
                response
                    .headers_mut()
                    .entry(CONTENT_LENGTH)
                    .or_insert_with(|| length.into());
            }
            *response.body_mut() = Body::empty();
        }
        response.map(|body| {
            let mut unfinished = stream.unfinished();
            if body.is_end_stream() {
                unfinished.complete();
            }
            Self {
                body,
                unfinished,
                stream,
            }
        })
    }
}

impl http_body::Body for Outbound {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let this = &mut *self;
        this.stream.taken();
        let frame = std::task::ready!(Pin::new(&mut this.body).poll_frame(context));
        this.stream.step();
        if !matches!(frame, Some(Ok(_))) || this.body.is_end_stream() {
            this.unfinished.complete();
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
