//! The body of a request, with our limits; and what becomes of one that nobody read to its end.

use std::{
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use h2::RecvStream;
use http::{HeaderMap, header::CONTENT_LENGTH};
use http_body::{Body as _, Frame, SizeHint};
use tokio::time::{Instant, Sleep, sleep, timeout};

use super::bell::Bell;
use crate::{
    config::Limits,
    web::{Body, body::Error, head, headers},
};

/// Bodies that were dropped before their end, for the connection to [`drain`].
///
/// An early answer would otherwise come with a reset of its stream, and some clients then throw
/// the answer away (curl 7.88 does).
#[derive(Debug)]
pub(super) struct Unread {
    left: Mutex<Vec<RecvStream>>,
    bell: Arc<Bell>,
}

impl Unread {
    /// None yet; `bell` rings for each.
    pub(super) fn new(bell: Arc<Bell>) -> Self {
        Self {
            left: Mutex::new(Vec::new()),
            bell,
        }
    }

    /// One that nobody will read.
    pub(super) fn leave(&self, stream: RecvStream) {
        if !stream.is_end_stream() {
            let mut left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
            left.push(stream);
            drop(left);
            std::task::Wake::wake_by_ref(&self.bell);
        }
    }

    /// All that were left since the last call.
    pub(super) fn take(&self) -> Vec<RecvStream> {
        std::mem::take(&mut self.left.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Throws away what comes, up to so many bytes and for a short while. After that the stream is
/// reset with `NO_ERROR` (RFC 9113, section 8.1).
pub(super) async fn drain(mut stream: RecvStream, mut left: u64) {
    let all = async {
        while let Some(Ok(data)) = stream.data().await {
            let _closed = stream.flow_control().release_capacity(data.len());
            match left.checked_sub(data.len() as u64) {
                Some(rest) => left = rest,
                None => return,
            }
        }
    };
    let _complete = timeout(LINGER, all).await;
}

/// The body of a request: fails when the device sends nothing for too long.
pub(super) struct Upload {
    /// `None` at its end.
    stream: Option<RecvStream>,
    /// What the device says is still to come.
    length: Option<u64>,
    limit: Duration,
    drain_bytes: u64,
    /// Made when the device is waited for the first time.
    timer: Option<Pin<Box<Sleep>>>,
    waiting: bool,
    unread: Arc<Unread>,
}

impl Upload {
    /// As the body type of requests.
    pub(super) fn body(
        stream: RecvStream,
        headers: &HeaderMap,
        limits: &Limits,
        unread: &Arc<Unread>,
    ) -> Body {
        if stream.is_end_stream() {
            return Body::empty();
        }
        let length = headers.get(CONTENT_LENGTH).map(|value| value.as_bytes());
        Body::stream(Self {
            stream: Some(stream),
            length: length.and_then(head::decimal),
            limit: limits.body_progress,
            drain_bytes: limits.drain_bytes,
            timer: None,
            waiting: false,
            unread: Arc::clone(unread),
        })
    }

    fn poll_stream(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, h2::Error>>> {
        let Some(stream) = &mut self.stream else {
            return Poll::Ready(None);
        };
        while let Some(data) = ready!(stream.poll_data(context)) {
            let data = data?;
            // Empty frames are no progress; h2 bounds their number.
            if !data.is_empty() {
                let _closed = stream.flow_control().release_capacity(data.len());
                self.length = self.length.map(|l| l.saturating_sub(data.len() as u64));
                return Poll::Ready(Some(Ok(Frame::data(data))));
            }
        }
        let trailers = ready!(stream.poll_trailers(context))?;
        self.stream = None;
        Poll::Ready(trailers.map(|mut trailers| {
            headers::clean_trailers(&mut trailers);
            Ok(Frame::trailers(trailers))
        }))
    }
}

impl http_body::Body for Upload {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let this = &mut *self;
        if let Poll::Ready(frame) = this.poll_stream(context) {
            this.waiting = false;
            return Poll::Ready(
                frame.map(|frame| frame.map_err(|error| Error::Device(Box::new(error)))),
            );
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
        self.stream.as_ref().is_none_or(RecvStream::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        if self.is_end_stream() {
            return SizeHint::with_exact(0);
        }
        self.length.map_or_else(SizeHint::new, SizeHint::with_exact)
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        // More than that is not worth waiting for.
        if self.size_hint().lower() <= self.drain_bytes
            && let Some(stream) = self.stream.take()
        {
            self.unread.leave(stream);
        }
    }
}

/// For the rest of a request that was answered already.
const LINGER: Duration = Duration::from_secs(2);
