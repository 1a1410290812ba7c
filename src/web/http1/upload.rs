//! A request's body on its way from the connection to whoever reads it, perhaps another task.
//!
//! Only the connection touches the socket. It puts one frame at a time into a slot, and reads no
//! further before that frame is taken: that is all the back pressure there is.

use std::{
    io,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
};

use bytes::{Bytes, BytesMut};
use http_body::{Frame, SizeHint};

use super::Wire;
use crate::web::{
    Body,
    body::Error,
    chunked::{Decoder, Piece},
    head::{self, Framing, Head},
    headers,
};

/// The connection's end of a request's body.
#[derive(Debug)]
pub(super) struct Upload {
    /// `None`: there was no body, or all of it came with the head.
    slot: Option<Arc<Slot>>,
    source: Source,
    /// The device waits for a word from us before it sends the body.
    expects_continue: bool,
    waiting: bool,
}

/// What an upload needs next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Status {
    /// The device closed or broke the connection.
    Gone,
    /// Nothing from the device: the frame in the slot must be taken first, or all is there.
    Settled,
    /// Bytes from the device.
    Waiting,
    /// The device wants to hear `100 Continue`, and somebody wants the body.
    WantsContinue,
}

#[derive(Debug)]
enum Source {
    Chunked(Decoder),
    Length(u64),
    /// Read to its end.
    Over,
    /// Given up: what comes now cannot be told from a next request.
    Lost,
}

impl Upload {
    /// The body of a request whose head was just read, and our end of it.
    pub(super) fn start(head: &Head, buffer: &mut BytesMut, limits: head::Limits) -> (Body, Self) {
        let source = match head.framing {
            Framing::Length(0) => return (Body::empty(), Self::none()),
            // Small bodies come with their head: nothing to hand over, then.
            Framing::Length(length) => match usize::try_from(length) {
                Ok(length) if length <= buffer.len() => {
                    return (Body::full(buffer.split_to(length)), Self::none());
                }
                _ => Source::Length(length),
            },
            Framing::Chunked => Source::Chunked(Decoder::new(limits)),
        };
        let left = match source {
            Source::Length(length) => Some(length),
            Source::Chunked(_) | Source::Over | Source::Lost => None,
        };
        let slot = Arc::new(Slot(Mutex::new(State {
            left,
            ..State::default()
        })));
        let body = Body::stream(Incoming(Arc::clone(&slot)));
        let upload = Self {
            slot: Some(slot),
            source,
            expects_continue: head.expects_continue,
            waiting: false,
        };
        (body, upload)
    }

    /// No body.
    pub(super) fn none() -> Self {
        Self {
            slot: None,
            source: Source::Over,
            expects_continue: false,
            waiting: false,
        }
    }

    /// Reads what the body's reader has room for. Without a body it watches the device, too.
    pub(super) fn poll(&mut self, context: &mut Context<'_>, wire: &mut Wire) -> Status {
        let status = self.advance(context, wire);
        self.waiting = status == Status::Waiting;
        status
    }

    /// The last poll left it waiting for the device.
    pub(super) fn is_waiting(&self) -> bool {
        self.waiting
    }

    /// Everything has been read.
    pub(super) fn is_over(&self) -> bool {
        matches!(self.source, Source::Over)
    }

    /// `100 Continue` has been sent.
    pub(super) fn continued(&mut self) {
        self.expects_continue = false;
    }

    /// What is left could be read within `limit` bytes, as far as is known.
    pub(super) fn can_be_drained(&self, limit: u64) -> bool {
        match self.source {
            Source::Over => true,
            Source::Lost => false,
            // The device may send the body or not: nobody can know.
            Source::Chunked(_) | Source::Length(_) if self.expects_continue => false,
            Source::Chunked(_) => true,
            Source::Length(length) => length <= limit,
        }
    }

    /// Tells the reader that no more comes.
    pub(super) fn fail(&mut self, error: Error) {
        self.source = Source::Lost;
        if let Some(slot) = self.slot.take() {
            slot.end(Err(error));
        }
    }

    /// Reads and forgets the rest; ready with `false` when that is not possible within `left`.
    pub(super) fn poll_drain(
        &mut self,
        context: &mut Context<'_>,
        wire: &mut Wire,
        left: &mut u64,
    ) -> Poll<bool> {
        if let Some(slot) = self.slot.take() {
            slot.end(Err(Error::Device(
                "the answer was complete before the request".into(),
            )));
        }
        loop {
            match self.decode(&mut wire.buffer) {
                Ok(Piece::Data(data)) => match left.checked_sub(data.len() as u64) {
                    Some(rest) => *left = rest,
                    None => return Poll::Ready(false),
                },
                Ok(Piece::End(_)) => return Poll::Ready(true),
                Ok(Piece::More) => match wire.poll_fill(context, DRAIN_BLOCK) {
                    Poll::Ready(Ok(1..)) => {}
                    Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(false),
                    Poll::Pending => return Poll::Pending,
                },
                Err(_broken) => return Poll::Ready(false),
            }
        }
    }

    fn advance(&mut self, context: &mut Context<'_>, wire: &mut Wire) -> Status {
        let Some(slot) = &self.slot else {
            return watch(context, wire);
        };
        let slot = Arc::clone(slot);
        if self.expects_continue {
            if wire.buffer.is_empty() && watch(context, wire) == Status::Gone {
                return Status::Gone;
            }
            if wire.buffer.is_empty() {
                return if slot.is_wanted(context) {
                    Status::WantsContinue
                } else {
                    Status::Settled
                };
            }
            // It did not wait.
            self.expects_continue = false;
        }
        loop {
            match slot.room(context) {
                Room::Free => {}
                Room::Taken => return Status::Settled,
                // Nobody wants the body, but whether the device is there still matters.
                Room::Abandoned => return watch(context, wire),
            }
            match self.decode(&mut wire.buffer) {
                Ok(Piece::Data(data)) => {
                    slot.put(Frame::data(data));
                    if self.is_over() {
                        return self.complete();
                    }
                }
                Ok(Piece::End(mut trailers)) => {
                    headers::clean_trailers(&mut trailers);
                    if !trailers.is_empty() {
                        slot.put(Frame::trailers(trailers));
                    }
                    return self.complete();
                }
                Ok(Piece::More) => match fill(context, wire, self.block()) {
                    Status::Settled => {}
                    status @ (Status::Gone | Status::Waiting | Status::WantsContinue) => {
                        return status;
                    }
                },
                Err(reason) => {
                    self.fail(Error::Framing(reason));
                    return Status::Settled;
                }
            }
        }
    }

    fn complete(&mut self) -> Status {
        if let Some(slot) = self.slot.take() {
            slot.end(Ok(()));
        }
        Status::Settled
    }

    fn decode(&mut self, buffer: &mut BytesMut) -> Result<Piece, &'static str> {
        match &mut self.source {
            Source::Chunked(decoder) => {
                let piece = decoder.decode(buffer).map_err(|error| error.reason())?;
                if matches!(piece, Piece::End(_)) {
                    self.source = Source::Over;
                }
                Ok(piece)
            }
            Source::Length(0) | Source::Over => {
                self.source = Source::Over;
                Ok(Piece::End(http::HeaderMap::new()))
            }
            Source::Length(_) if buffer.is_empty() => Ok(Piece::More),
            Source::Length(left) => {
                let length = usize::try_from(*left)
                    .unwrap_or(usize::MAX)
                    .min(buffer.len());
                *left = left.saturating_sub(length as u64);
                if *left == 0 {
                    self.source = Source::Over;
                }
                Ok(Piece::Data(buffer.split_to(length).freeze()))
            }
            Source::Lost => Err("the body was given up"),
        }
    }

    /// How much to make room for: the whole rest when it is little.
    fn block(&self) -> usize {
        match self.source {
            Source::Length(left) => usize::try_from(left).unwrap_or(BLOCK).min(BLOCK),
            Source::Chunked(_) | Source::Over | Source::Lost => BLOCK,
        }
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        self.fail(Error::Device(Box::new(io::Error::from(
            io::ErrorKind::ConnectionAborted,
        ))));
    }
}

/// Reads while there is something, up to a block; `Settled` when something came.
fn fill(context: &mut Context<'_>, wire: &mut Wire, block: usize) -> Status {
    let mut status = Status::Waiting;
    while wire.buffer.len() < block.max(1) {
        match wire.poll_fill(context, block) {
            Poll::Ready(Ok(1..)) => status = Status::Settled,
            // What came before the end is still good.
            Poll::Ready(Ok(0) | Err(_)) if status == Status::Settled => break,
            Poll::Ready(Ok(0) | Err(_)) => return Status::Gone,
            Poll::Pending => break,
        }
    }
    status
}

/// Notices that the device goes; keeps a bounded amount of what it sends meanwhile.
fn watch(context: &mut Context<'_>, wire: &mut Wire) -> Status {
    while wire.buffer.len() < AHEAD {
        match wire.poll_sip(context) {
            Poll::Ready(Ok(1..)) => {}
            Poll::Ready(Ok(0) | Err(_)) => return Status::Gone,
            Poll::Pending => break,
        }
    }
    Status::Settled
}

/// The reader's end.
#[derive(Debug)]
struct Incoming(Arc<Slot>);

impl http_body::Body for Incoming {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let mut state = self.0.lock();
        if let Some(frame) = state.frame.take() {
            let length = frame.data_ref().map_or(0, |data| data.len() as u64);
            state.left = state.left.map(|left| left.saturating_sub(length));
            let connection = state.connection.take();
            drop(state);
            if let Some(connection) = connection {
                connection.wake();
            }
            return Poll::Ready(Some(Ok(frame)));
        }
        match state.end.take() {
            Some(end) => {
                state.end = Some(Ok(()));
                Poll::Ready(end.err().map(Err))
            }
            None => {
                state.wanted = true;
                state.reader = Some(context.waker().clone());
                let connection = state.connection.take();
                drop(state);
                if let Some(connection) = connection {
                    connection.wake();
                }
                Poll::Pending
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        let state = self.0.lock();
        state.frame.is_none() && matches!(state.end, Some(Ok(())))
    }

    fn size_hint(&self) -> SizeHint {
        self.0
            .lock()
            .left
            .map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.abandoned = true;
        let connection = state.connection.take();
        drop(state);
        if let Some(connection) = connection {
            connection.wake();
        }
    }
}

#[derive(Debug)]
struct Slot(Mutex<State>);

/// Whether a slot takes a frame.
enum Room {
    Abandoned,
    Free,
    Taken,
}

#[derive(Debug, Default)]
struct State {
    frame: Option<Frame<Bytes>>,
    end: Option<Result<(), Error>>,
    /// Bytes that the reader has not had, when that is known.
    left: Option<u64>,
    /// The reader has asked for bytes.
    wanted: bool,
    /// The reader is gone.
    abandoned: bool,
    reader: Option<Waker>,
    connection: Option<Waker>,
}

impl Slot {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing that holds the lock can leave the state half done.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn put(&self, frame: Frame<Bytes>) {
        let mut state = self.lock();
        state.frame = Some(frame);
        wake_reader(state);
    }

    fn end(&self, end: Result<(), Error>) {
        let mut state = self.lock();
        if state.end.is_none() {
            state.end = Some(end);
        }
        wake_reader(state);
    }

    /// Whether a frame can be put; else the connection is woken when that changes.
    fn room(&self, context: &Context<'_>) -> Room {
        let mut state = self.lock();
        if state.abandoned {
            Room::Abandoned
        } else if state.frame.is_some() {
            state.connection = Some(context.waker().clone());
            Room::Taken
        } else {
            Room::Free
        }
    }

    /// The reader has asked; else the connection is woken when it does.
    fn is_wanted(&self, context: &Context<'_>) -> bool {
        let mut state = self.lock();
        if !state.wanted {
            state.connection = Some(context.waker().clone());
        }
        state.wanted
    }
}

fn wake_reader(mut state: MutexGuard<'_, State>) {
    let reader = state.reader.take();
    drop(state);
    if let Some(reader) = reader {
        reader.wake();
    }
}

/// Read and handed over at a time.
const BLOCK: usize = 64 * 1024;
const DRAIN_BLOCK: usize = 16 * 1024;
/// Kept of what a device sends before its request is answered: pipelined requests, early bytes.
const AHEAD: usize = 16 * 1024;
