//! One HTTP/1 connection: reads heads, hands requests on, writes answers, in turn.
//!
//! An idle connection holds no buffer: [`Wire::poll_sip`] reads the first bytes of a request into
//! the stack, and everything that requests need lives in one box that goes a moment after the last
//! of a run.

use std::{
    future::{Future, poll_fn},
    io,
    mem::MaybeUninit,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::{Buf, BytesMut};
use http::{Method, Request, StatusCode, Version};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf},
    time::{Instant, Sleep, sleep},
};
use tokio_util::sync::WaitForCancellationFutureOwned;
use tracing::debug;

pub(crate) use self::answer::Output;
use self::{
    answer::{Facts, Failure, Sending},
    upload::{Status, Upload},
};
use super::{
    Answer, Body, Handler, NOT_TAKEN, Refusal, Stream, Takeover,
    body::Error as BodyError,
    head::{self, Head, Scanner},
};
use crate::{
    config::Limits,
    shutdown::{Heard, Tasks},
    tls,
};

mod answer;
mod upload;

/// Serves one connection to its end.
pub(super) async fn serve<H: Handler>(
    stream: Box<tls::Stream>,
    limits: Arc<Limits>,
    tasks: &Tasks,
    handler: Arc<H>,
) {
    let mut drained = pin!(tasks.draining().clone().cancelled_owned());
    let mut drained = tasks.hear_draining(drained.as_mut());
    let mut timer = pin!(sleep(limits.head));
    let mut wire = Wire {
        stream,
        buffer: BytesMut::new(),
        moved: 0,
    };
    let connection = Connection {
        head_limits: head_limits(&limits),
        handler,
        limits,
        tasks,
    };
    let mut first = true;
    while let Woken::Bytes = wire.awaken(timer.as_mut(), &mut drained).await {
        // The first head is due from the start of the connection, the others from their first byte.
        let busy = connection.busy(&mut wire, timer.as_mut(), &mut drained, first);
        match Box::pin(busy).await {
            End::Close => break,
            End::Gone => return,
            End::Idle => first = false,
            End::Linger => {
                wire.linger(timer, &connection.limits).await;
                return;
            }
            End::Takeover(then) => {
                let stream = Stream::Http1(wire.stream, wire.buffer.freeze());
                then(stream).await;
                return;
            }
        }
        let rest = connection.limits.idle.saturating_sub(QUIET);
        timer.as_mut().reset(Instant::now() + rest);
    }
    wire.shut_down(timer, connection.limits.body_progress).await;
}

/// What a whole head may cost, as the configuration says.
pub(super) fn head_limits(limits: &Limits) -> head::Limits {
    head::Limits {
        bytes: limits.head_bytes,
        fields: limits.head_fields,
        target: limits.target_bytes,
    }
}

struct Connection<'a, H> {
    handler: Arc<H>,
    limits: Arc<Limits>,
    head_limits: head::Limits,
    tasks: &'a Tasks,
}

/// How a connection goes on after a request, or a run of them.
enum End {
    /// Orderly: nothing unread is on its way.
    Close,
    /// At once: the device is gone, or must see that its answer is incomplete.
    Gone,
    /// Wait for the next request, which did not come at once.
    Idle,
    /// Orderly, but the device may still be sending.
    Linger,
    /// The bytes are raw from here on.
    Takeover(Takeover),
}

impl<H: Handler> Connection<'_, H> {
    /// Answers requests as long as the next one comes at once. What a request needs is made once
    /// for all of them, and given back when the connection is quiet.
    async fn busy(
        &self,
        wire: &mut Wire,
        mut timer: Pin<&mut Sleep>,
        drained: &mut Drained<'_>,
        mut first: bool,
    ) -> End {
        loop {
            let head = match self.read_head(wire, timer.as_mut(), first).await {
                Ok(Some(head)) => head,
                Ok(None) => return End::Close,
                Err(refusal) => return self.refuse(wire, timer, &refusal).await,
            };
            first = false;
            let end = self.exchange(wire, timer.as_mut(), head).await;
            if !matches!(end, End::Idle) {
                return end;
            }
            if !wire.buffer.is_empty() {
                continue;
            }
            // Gives its memory back.
            wire.buffer = BytesMut::new();
            let quiet = self.limits.idle.min(QUIET);
            timer.as_mut().reset(Instant::now() + quiet);
            match wire.awaken(timer.as_mut(), drained).await {
                Woken::Bytes => {}
                Woken::Late if quiet < self.limits.idle => return End::Idle,
                Woken::Late | Woken::Over => return End::Close,
            }
        }
    }

    /// The next head; `None` when the device closed, or sent nothing in time.
    async fn read_head(
        &self,
        wire: &mut Wire,
        mut timer: Pin<&mut Sleep>,
        mut armed: bool,
    ) -> Result<Option<Head>, Refusal> {
        let mut scanner = Scanner::default();
        let mut skipped = false;
        loop {
            match scanner.advance(&wire.buffer, &self.head_limits) {
                // Old devices send an empty line after a body (RFC 9112, section 2.2).
                Ok(Some(2)) if !skipped => {
                    skipped = true;
                    wire.buffer.advance(2);
                    scanner = Scanner::default();
                    continue;
                }
                Ok(Some(length)) => {
                    let head = wire.buffer.split_to(length).freeze();
                    return Head::parse(&head, &self.head_limits)
                        .map(Some)
                        .map_err(refusal);
                }
                Ok(None) => {}
                Err(error) => return Err(refusal(error)),
            }
            if !armed {
                armed = true;
                timer.as_mut().reset(Instant::now() + self.limits.head);
            }
            let read = poll_fn(|context| {
                if let Poll::Ready(read) = wire.poll_fill(context, HEAD_BLOCK) {
                    return Poll::Ready(Some(read));
                }
                timer.as_mut().poll(context).map(|()| None)
            });
            match read.await {
                Some(Ok(1..)) => {}
                Some(Ok(0) | Err(_)) => return Ok(None),
                None if wire.buffer.is_empty() => return Ok(None),
                None => {
                    return Err(Refusal {
                        status: StatusCode::REQUEST_TIMEOUT,
                        reason: "the head did not come in time",
                    });
                }
            }
        }
    }

    /// Has one request answered, and writes the answer.
    async fn exchange(&self, wire: &mut Wire, mut timer: Pin<&mut Sleep>, head: Head) -> End {
        let facts = Facts {
            head: head.method == Method::HEAD,
            connect: head.method == Method::CONNECT,
            version: head.version,
        };
        let keep_alive = head.keep_alive;
        let (body, upload) = Upload::start(&head, &mut wire.buffer, self.head_limits);
        let mut io = Io {
            wire,
            upload,
            output: Output::default(),
            patience: Patience::new(self.limits.body_progress),
        };

        let answer = {
            let call = pin!(self.handler.call(request(head, body)));
            io.answer(call, timer.as_mut()).await
        };
        let Some(answer) = answer else {
            return End::Gone;
        };
        let (response, then) = match (facts.takes_over(answer.response.status()), answer.then) {
            (true, Some(then)) => (answer.response, Some(then)),
            (false, _) => (answer.response, None),
            // Bytes after such a head would be raw, and nobody is there to take them (R18).
            (true, None) => (self.handler.refuse(&NOT_TAKEN), None),
        };
        if then.is_some() && !io.drain(timer.as_mut(), &self.limits).await {
            return End::Gone;
        }
        let close = !keep_alive
            || facts.connect
            || self.tasks.is_draining()
            || answer::asks_to_close(&response)
            || !io.upload.can_be_drained(self.limits.drain_bytes);
        let hang_up = close && then.is_none();
        let mut sending = Sending::start(response, &facts, hang_up, &mut io.output);
        let sent = poll_fn(|context| io.poll_answer(context, timer.as_mut(), &mut sending)).await;
        match sent {
            Err(failure) => {
                debug!(error = %failure, "an answer was cut off");
                End::Gone
            }
            Ok(()) => match then {
                Some(then) => End::Takeover(then),
                None if close && io.is_settled() && !facts.connect => End::Close,
                None if close => End::Linger,
                None if sending.ends_with_connection() => End::Close,
                None if io.drain(timer, &self.limits).await => End::Idle,
                None => End::Linger,
            },
        }
    }

    /// Answers what could not become a request; nothing after it can be trusted.
    async fn refuse(&self, wire: &mut Wire, mut timer: Pin<&mut Sleep>, refusal: &Refusal) -> End {
        let facts = Facts {
            head: false,
            connect: false,
            version: Version::HTTP_11,
        };
        let mut io = Io {
            wire,
            upload: Upload::none(),
            output: Output::default(),
            patience: Patience::new(self.limits.body_progress),
        };
        let response = self.handler.refuse(refusal);
        let mut sending = Sending::start(response, &facts, true, &mut io.output);
        let sent = poll_fn(|context| {
            // What the device still sends is not read: it is no request any more.
            match sending.poll(context, &mut io.wire.stream, &mut io.output) {
                Poll::Ready(sent) => Poll::Ready(sent.is_ok()),
                Poll::Pending => {
                    let slow = io.patience.poll(context, timer.as_mut(), true, 0);
                    if slow {
                        Poll::Ready(false)
                    } else {
                        Poll::Pending
                    }
                }
            }
        });
        if sent.await { End::Linger } else { End::Gone }
    }
}

/// A connection while it answers one request.
struct Io<'a> {
    wire: &'a mut Wire,
    upload: Upload,
    output: Output,
    patience: Patience,
}

impl Io<'_> {
    /// Waits for the handler, feeding it the body; `None` when the device has gone.
    async fn answer(
        &mut self,
        mut call: Pin<&mut impl Future<Output = Answer>>,
        mut timer: Pin<&mut Sleep>,
    ) -> Option<Answer> {
        poll_fn(|context| {
            if let Poll::Ready(answer) = call.as_mut().poll(context) {
                return Poll::Ready(Some(answer));
            }
            self.poll_device(context, timer.as_mut(), true)
                .map(|()| None)
        })
        .await
    }

    /// Feeds the request's body, and is ready when the device is gone.
    ///
    /// Before the answer has begun, `interim` answers may be sent.
    fn poll_device(
        &mut self,
        context: &mut Context<'_>,
        timer: Pin<&mut Sleep>,
        interim: bool,
    ) -> Poll<()> {
        let mut status = self.upload.poll(context, self.wire);
        if interim {
            if status == Status::WantsContinue {
                self.output.push(b"HTTP/1.1 100 Continue\r\n\r\n");
                self.upload.continued();
                status = self.upload.poll(context, self.wire);
            }
            match self.output.poll(context, &mut self.wire.stream) {
                Poll::Ready(Err(_broken)) => return Poll::Ready(()),
                Poll::Ready(Ok(())) | Poll::Pending => {}
            }
        }
        if status == Status::Gone {
            return Poll::Ready(());
        }
        let waiting = status == Status::Waiting;
        let moved = self.wire.moved;
        if interim && self.patience.poll(context, timer, waiting, moved) {
            self.upload.fail(BodyError::Slow(self.patience.limit));
        }
        Poll::Pending
    }

    /// Writes the answer, while the request's body may still be coming.
    fn poll_answer(
        &mut self,
        context: &mut Context<'_>,
        mut timer: Pin<&mut Sleep>,
        sending: &mut Sending,
    ) -> Poll<Result<(), Failure>> {
        let sent = sending.poll(context, &mut self.wire.stream, &mut self.output);
        if sent.is_ready() {
            return sent;
        }
        if self.poll_device(context, timer.as_mut(), false).is_ready() {
            return Poll::Ready(Err(Failure::Device(
                io::ErrorKind::ConnectionAborted.into(),
            )));
        }
        let blocked = !self.output.is_empty();
        let waiting = blocked || self.upload.is_waiting();
        let moved = self.wire.moved.wrapping_add(self.output.moved());
        if self.patience.poll(context, timer, waiting, moved) {
            if blocked {
                return Poll::Ready(Err(Failure::Device(io::ErrorKind::TimedOut.into())));
            }
            self.upload.fail(BodyError::Slow(self.patience.limit));
        }
        Poll::Pending
    }

    /// The device has nothing on its way, as far as is known.
    fn is_settled(&self) -> bool {
        self.upload.is_over() && self.wire.buffer.is_empty()
    }

    /// Reads what is left of the request's body, within its limits; `false` when there is more.
    async fn drain(&mut self, mut timer: Pin<&mut Sleep>, limits: &Limits) -> bool {
        if self.upload.is_over() {
            return true;
        }
        let upload = &mut self.upload;
        let wire = &mut *self.wire;
        timer
            .as_mut()
            .reset(Instant::now() + LINGER.min(limits.body_progress));
        let mut left = limits.drain_bytes;
        poll_fn(|context| {
            if let Poll::Ready(complete) = upload.poll_drain(context, wire, &mut left) {
                return Poll::Ready(complete);
            }
            timer.as_mut().poll(context).map(|()| false)
        })
        .await
    }
}

/// Notices that the device has neither sent nor taken a byte for too long.
struct Patience {
    limit: Duration,
    moved: Option<u64>,
}

impl Patience {
    fn new(limit: Duration) -> Self {
        Self { limit, moved: None }
    }

    /// `true` when `moved` has not changed for the limit while we were waiting for the device.
    fn poll(
        &mut self,
        context: &mut Context<'_>,
        mut timer: Pin<&mut Sleep>,
        waiting: bool,
        moved: u64,
    ) -> bool {
        if !waiting {
            self.moved = None;
            return false;
        }
        if self.moved != Some(moved) {
            self.moved = Some(moved);
            timer.as_mut().reset(Instant::now() + self.limit);
        }
        timer.poll(context).is_ready()
    }
}

/// Why a connection that waited for a request does so no more.
enum Woken {
    /// Its first bytes are there.
    Bytes,
    /// The time is over.
    Late,
    /// The device is gone, or a drain began: there is no next request.
    Over,
}

type Drained<'a> = Heard<'a, WaitForCancellationFutureOwned>;

/// The device's bytes: the stream, and what was read of it and not yet used.
struct Wire {
    stream: Box<tls::Stream>,
    buffer: BytesMut,
    /// Bytes read so far.
    moved: u64,
}

impl Wire {
    /// Waits for the first byte of a request.
    async fn awaken(&mut self, mut timer: Pin<&mut Sleep>, drained: &mut Drained<'_>) -> Woken {
        poll_fn(|context| match self.poll_sip(context) {
            Poll::Ready(Ok(1..)) => Poll::Ready(Woken::Bytes),
            Poll::Ready(Ok(0) | Err(_)) => Poll::Ready(Woken::Over),
            Poll::Pending if drained.poll(context).is_ready() => Poll::Ready(Woken::Over),
            Poll::Pending => timer.as_mut().poll(context).map(|()| Woken::Late),
        })
        .await
    }

    /// Reads a little, with no buffer while there is nothing.
    fn poll_sip(&mut self, context: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let mut space = [MaybeUninit::uninit(); SIP];
        let mut sip = ReadBuf::uninit(&mut space);
        ready!(Pin::new(&mut *self.stream).poll_read(context, &mut sip))?;
        let read = sip.filled();
        self.buffer.extend_from_slice(read);
        self.moved = self.moved.wrapping_add(read.len() as u64);
        Poll::Ready(Ok(read.len()))
    }

    /// Reads into the buffer, which gets room for `block` bytes when it is nearly full.
    fn poll_fill(&mut self, context: &mut Context<'_>, block: usize) -> Poll<io::Result<usize>> {
        if self.buffer.capacity().saturating_sub(self.buffer.len()) < HEAD_BLOCK.min(block) {
            self.buffer.reserve(block);
        }
        let read = ready!(pin!(self.stream.read_buf(&mut self.buffer)).poll(context))?;
        self.moved = self.moved.wrapping_add(read as u64);
        Poll::Ready(Ok(read))
    }

    /// Tells the device that nothing more comes.
    async fn shut_down(&mut self, mut timer: Pin<&mut Sleep>, limit: Duration) -> bool {
        timer.as_mut().reset(Instant::now() + limit.min(LINGER));
        poll_fn(|context| {
            if let Poll::Ready(shut) = Pin::new(&mut *self.stream).poll_shutdown(context) {
                return Poll::Ready(shut.is_ok());
            }
            timer.as_mut().poll(context).map(|()| false)
        })
        .await
    }

    /// Closes such that the answer arrives although the device is still sending.
    ///
    /// Closing a socket with unread bytes resets it, and a reset can overtake the answer.
    async fn linger(&mut self, mut timer: Pin<&mut Sleep>, limits: &Limits) {
        if !self.shut_down(timer.as_mut(), limits.body_progress).await {
            return;
        }
        // Time alone is the limit: a reset, which every byte that comes after the close would
        // bring, makes a device that is busy sending lose the answer.
        poll_fn(|context| {
            if timer.as_mut().poll(context).is_ready() {
                return Poll::Ready(());
            }
            // So that a device that sends without a pause is looked at again, and not for ever.
            for _ in 0..SIPS {
                self.buffer.clear();
                match self.poll_sip(context) {
                    Poll::Ready(Ok(1..)) => {}
                    Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(()),
                    Poll::Pending => return Poll::Pending,
                }
            }
            context.waker().wake_by_ref();
            Poll::Pending
        })
        .await;
    }
}

fn request(head: Head, body: Body) -> Request<Body> {
    let mut request = Request::new(body);
    *request.method_mut() = head.method;
    *request.uri_mut() = head.target;
    *request.version_mut() = head.version;
    *request.headers_mut() = head.headers;
    request
}

fn refusal(error: head::Error) -> Refusal {
    Refusal {
        status: error.status(),
        reason: error.reason(),
    }
}

/// Read on the stack while nothing is known to be there.
const SIP: usize = 4 * 1024;
/// Sips in a row from a device that is not heard any more.
const SIPS: usize = 64;
/// Read at a time while a head is incomplete.
const HEAD_BLOCK: usize = 4 * 1024;
/// For so long after an answer a connection is ready for the next request.
const QUIET: Duration = Duration::from_secs(1);
/// For closing, and for what is drained before a connection is used again.
const LINGER: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests;
