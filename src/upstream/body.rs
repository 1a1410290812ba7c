//! An answer's body, with its limits, whichever protocol brings it.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use tokio::time::{Instant, Sleep, sleep};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use crate::web::{Body, body::Error};

/// An answer's body, with its limits. Giving it up before its end closes what it came on.
#[derive(Debug)]
pub(super) struct Receiving<S> {
    /// `None`: the answer is over, whole or not.
    source: Option<S>,
    limit: Duration,
    /// Runs while nothing comes.
    silence: Option<Pin<Box<Sleep>>>,
    silent: bool,
    /// What was sent of the request when the silence began.
    sent: u64,
    stop: Option<CancellationToken>,
    stopped: Option<Pin<Box<WaitForCancellationFutureOwned>>>,
}

/// What an answer comes from.
pub(super) trait Source:
    http_body::Body<Data = Bytes, Error: std::error::Error + Send + Sync> + Send + Unpin + 'static
{
    /// The answer was read to its end.
    fn finish(self);

    /// Bytes of the request that went out: while they do, a node need not answer on.
    fn sent(&self) -> u64 {
        0
    }
}

impl<S: Source> Receiving<S> {
    /// The body of an answer. `limit` is the time without a byte of it.
    pub(super) fn start(source: S, limit: Duration, stop: Option<&CancellationToken>) -> Body {
        if source.is_end_stream() {
            source.finish();
            return Body::empty();
        }
        Body::stream(Self {
            source: Some(source),
            limit,
            silence: None,
            silent: false,
            sent: 0,
            stop: stop.cloned(),
            stopped: None,
        })
    }

    fn finish(&mut self) {
        if let Some(source) = self.source.take() {
            source.finish();
        }
    }

    /// Nothing has come: is it time to give up?
    fn poll_limits(&mut self, context: &mut Context<'_>) -> Poll<Ended> {
        if let Some(stop) = self.stop.take() {
            self.stopped = Some(Box::pin(stop.cancelled_owned()));
        }
        if let Some(stopped) = &mut self.stopped
            && stopped.as_mut().poll(context).is_ready()
        {
            return Poll::Ready(Ended::Stopped);
        }
        let limit = self.limit;
        let sent = self.source.as_ref().map_or(0, S::sent);
        let silence = self.silence.get_or_insert_with(|| Box::pin(sleep(limit)));
        if !self.silent || sent != self.sent {
            self.silent = true;
            self.sent = sent;
            silence.as_mut().reset(Instant::now() + limit);
        }
        silence
            .as_mut()
            .poll(context)
            .map(|()| Ended::Silent(limit))
    }
}

impl<S: Source> http_body::Body for Receiving<S> {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let this = &mut *self;
        let Some(source) = &mut this.source else {
            return Poll::Ready(None);
        };
        match Pin::new(&mut *source).poll_frame(context) {
            Poll::Pending => {
                let ended = ready!(this.poll_limits(context));
                this.source = None;
                Poll::Ready(Some(Err(Error::Backend(Box::new(ended)))))
            }
            Poll::Ready(Some(Ok(frame))) => {
                this.silent = false;
                if source.is_end_stream() {
                    this.finish();
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(error))) => {
                this.source = None;
                Poll::Ready(Some(Err(Error::Backend(Box::new(error)))))
            }
            Poll::Ready(None) => {
                this.finish();
                Poll::Ready(None)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.source.as_ref().is_none_or(S::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        // What is over has no more bytes.
        let none = || SizeHint::with_exact(0);
        self.source.as_ref().map_or_else(none, S::size_hint)
    }
}

/// Why the gateway ended an answer that had begun.
#[derive(Debug, thiserror::Error)]
pub enum Ended {
    /// The node sent nothing for this long.
    #[error("the node sent nothing for {0:?}")]
    Silent(Duration),
    /// The session ended.
    #[error("the session ended")]
    Stopped,
}
