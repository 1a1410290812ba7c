//! Bodies on their way: the request's, watched and held back; the answer's, with its limits.

use std::{
    fmt,
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use futures_util::FutureExt;
use http_body::{Body as _, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::{
    sync::oneshot,
    time::{Instant, Sleep, sleep},
};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use crate::web::{Body, body::Error};

/// A request's body as hyper sends it.
pub(super) struct Sending {
    body: Body,
    progress: Option<Arc<Progress>>,
    gate: Option<Gate>,
}

impl Sending {
    pub(super) fn new(body: Body) -> Self {
        // Most requests have none: they need no watching.
        let progress = (!body.is_end_stream()).then(Arc::default);
        Self {
            body,
            progress,
            gate: None,
        }
    }

    /// What can be seen of it while hyper has it; `None` when there is no body.
    pub(super) fn progress(&self) -> Option<Arc<Progress>> {
        self.progress.clone()
    }

    /// Holds the body back until the node says `100 Continue`, or has said nothing for a while
    /// (RFC 9110, section 10.1.1). The device is asked for its body by reading it.
    pub(super) fn hold_back(&mut self) -> Opener {
        let (opener, opened) = oneshot::channel();
        self.gate = Some(Gate {
            opened,
            late: Box::pin(sleep(CONTINUE_LIMIT)),
        });
        Opener(Mutex::new(Some(opener)))
    }

    /// The body again, when nothing of it was sent.
    pub(super) fn into_body(self) -> Body {
        self.body
    }
}

impl http_body::Body for Sending {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let this = &mut *self;
        if let Some(gate) = &mut this.gate {
            if gate.opened.poll_unpin(context).is_pending()
                && gate.late.poll_unpin(context).is_pending()
            {
                return Poll::Pending;
            }
            this.gate = None;
        }
        let polled = Pin::new(&mut this.body).poll_frame(context);
        if let (Some(progress), Poll::Ready(frame)) = (&this.progress, &polled) {
            progress.frames.fetch_add(1, Ordering::Relaxed);
            if frame.is_none() || this.body.is_end_stream() {
                progress.done.store(true, Ordering::Release);
            }
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl fmt::Debug for Sending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sending")
            .field("body", &self.body)
            .field("held_back", &self.gate.is_some())
            .finish_non_exhaustive()
    }
}

/// How far a request's body has come.
#[derive(Debug, Default)]
pub(super) struct Progress {
    frames: AtomicU64,
    done: AtomicBool,
}

impl Progress {
    /// Frames read from the device; hyper reads one when it has room for it.
    pub(super) fn frames(&self) -> u64 {
        self.frames.load(Ordering::Relaxed)
    }

    /// The whole body was read.
    pub(super) fn is_done(&self) -> bool {
        self.done.load(Ordering::Acquire)
    }
}

struct Gate {
    opened: oneshot::Receiver<()>,
    late: Pin<Box<Sleep>>,
}

/// Lets a body go that was held back.
#[derive(Debug)]
pub(super) struct Opener(Mutex<Option<oneshot::Sender<()>>>);

impl Opener {
    pub(super) fn open(&self) {
        let opener = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(opener) = opener {
            // Nobody waits when the body was let go already.
            let _late = opener.send(());
        }
    }
}

/// An answer's body: gives back the connection at its end, closes it when given up before.
pub(super) struct Receiving<H> {
    incoming: Incoming,
    held: Option<H>,
    limit: Duration,
    /// Runs while nothing comes.
    silence: Option<Pin<Box<Sleep>>>,
    silent: bool,
    stop: Option<CancellationToken>,
    stopped: Option<Pin<Box<WaitForCancellationFutureOwned>>>,
}

/// What an answer holds until its end.
pub(super) trait Hold: Send + Unpin + 'static {
    /// The answer was read to its end.
    fn finish(self);
}

impl<H: Hold> Receiving<H> {
    /// The body of an answer. `limit` is the time without a byte of it.
    pub(super) fn start(
        incoming: Incoming,
        held: H,
        limit: Duration,
        stop: Option<CancellationToken>,
    ) -> Body {
        if incoming.is_end_stream() {
            held.finish();
            return Body::empty();
        }
        Body::stream(Self {
            incoming,
            held: Some(held),
            limit,
            silence: None,
            silent: false,
            stop,
            stopped: None,
        })
    }

    /// The answer is over, whole or not.
    fn finish(&mut self, whole: bool) {
        if let Some(held) = self.held.take()
            && whole
        {
            held.finish();
        }
    }

    /// Nothing has come: is it time to give up?
    fn poll_limits(&mut self, context: &mut Context<'_>) -> Poll<Error> {
        if let Some(stop) = self.stop.take() {
            self.stopped = Some(Box::pin(stop.cancelled_owned()));
        }
        if let Some(stopped) = &mut self.stopped
            && stopped.poll_unpin(context).is_ready()
        {
            return Poll::Ready(Error::Backend(Box::new(Ended::Stopped)));
        }
        let limit = self.limit;
        let silence = self.silence.get_or_insert_with(|| Box::pin(sleep(limit)));
        if !self.silent {
            self.silent = true;
            silence.as_mut().reset(deadline(limit));
        }
        silence
            .poll_unpin(context)
            .map(|()| Error::Backend(Box::new(Ended::Silent(limit))))
    }
}

impl<H: Hold> http_body::Body for Receiving<H> {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let this = &mut *self;
        if this.held.is_none() {
            return Poll::Ready(None);
        }
        match Pin::new(&mut this.incoming).poll_frame(context) {
            Poll::Pending => {
                let error = std::task::ready!(this.poll_limits(context));
                this.finish(false);
                Poll::Ready(Some(Err(error)))
            }
            Poll::Ready(Some(Ok(frame))) => {
                this.silent = false;
                if this.incoming.is_end_stream() {
                    this.finish(true);
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(error))) => {
                this.finish(false);
                Poll::Ready(Some(Err(Error::Backend(Box::new(error)))))
            }
            Poll::Ready(None) => {
                this.finish(true);
                Poll::Ready(None)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.held.is_none() || self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
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

/// The error of a body among the causes of an error.
pub(super) fn cause<'a>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a Error> {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(found) = error.downcast_ref() {
            return Some(found);
        }
        cause = error.source();
    }
    None
}

fn deadline(limit: Duration) -> Instant {
    Instant::now() + limit
}

/// How long a node may think about `Expect: 100-continue` before it is sent the body anyway.
const CONTINUE_LIMIT: Duration = Duration::from_secs(1);
