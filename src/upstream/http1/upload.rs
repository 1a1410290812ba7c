//! A request on its way to a node: its head, and its body as the device sends it.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http::{
    HeaderMap, HeaderValue, Method,
    header::{CONTENT_LENGTH, EXPECT, HOST},
    uri::PathAndQuery,
};
use http_body::Body as _;
use tokio::{
    io::AsyncWrite,
    time::{Sleep, sleep},
};

use super::Broken;
use crate::web::{
    Body, Output,
    head::{Framing, decimal},
};

/// The head of a request.
#[derive(Clone, Copy, Debug)]
pub(in crate::upstream) struct Head<'a> {
    pub(in crate::upstream) method: &'a Method,
    pub(in crate::upstream) target: &'a PathAndQuery,
    pub(in crate::upstream) host: &'a HeaderValue,
    /// The other fields, none of them for one hop only, unless the request asks for an upgrade.
    pub(in crate::upstream) fields: &'a HeaderMap,
}

/// A request that is being sent.
#[derive(Debug)]
pub(in crate::upstream) struct Upload {
    body: Body,
    framing: Framing,
    output: Output,
    /// Runs while the body is held back until the node says `100 Continue`, or has said nothing
    /// for a while (RFC 9110, section 10.1.1). The device is asked for its body by reading it.
    held_back: Option<Pin<Box<Sleep>>>,
    /// Nothing of the body was read from the device.
    untouched: bool,
    /// The whole body was read.
    over: bool,
    /// The node has everything, as far as we are concerned.
    sent: bool,
}

impl Upload {
    /// Writes the head, and sends nothing yet.
    ///
    /// # Errors
    ///
    /// When the length is not one that could be kept.
    pub(in crate::upstream) fn start(head: &Head<'_>, body: Body) -> Result<Self, &'static str> {
        let mut output = Output::default();
        for part in [
            head.method.as_str(),
            " ",
            head.target.as_str(),
            " HTTP/1.1\r\n",
        ] {
            output.push(part.as_bytes());
        }
        output.field(&HOST, head.host.as_bytes());
        for (name, value) in head.fields {
            output.field(name, value.as_bytes());
        }
        let over = body.is_end_stream();
        let framing = match (declared(head.fields)?, body.size_hint().exact()) {
            // A length without its bytes would have the node take the next request for them.
            (Some(1..), _) if over => return Err("a length without a body"),
            (_, _) if over => Framing::Length(0),
            (Some(length), _) => Framing::Length(length),
            (None, Some(length)) => {
                output.field(&CONTENT_LENGTH, length.to_string().as_bytes());
                Framing::Length(length)
            }
            (None, None) => {
                output.push(b"transfer-encoding: chunked\r\n");
                Framing::Chunked
            }
        };
        output.push(b"\r\n");
        let expects = head
            .fields
            .get(EXPECT)
            .is_some_and(|expect| expect.as_bytes().eq_ignore_ascii_case(b"100-continue"));
        Ok(Self {
            body,
            framing,
            output,
            held_back: (expects && !over).then(|| Box::pin(sleep(CONTINUE_LIMIT))),
            untouched: true,
            over,
            sent: false,
        })
    }

    /// Sends as far as device and node allow; ready when everything is sent.
    ///
    /// # Errors
    ///
    /// When the device's body breaks off, or the connection.
    pub(super) fn poll<S>(
        &mut self,
        context: &mut Context<'_>,
        stream: &mut S,
    ) -> Poll<Result<(), Broken>>
    where
        S: AsyncWrite + Unpin,
    {
        while !self.sent {
            let mut starved = false;
            while !self.over && !starved && self.output.has_room() {
                starved = self.poll_body(context)?.is_pending();
            }
            ready!(self.output.poll(context, stream)).map_err(Broken::Write)?;
            self.sent = self.over;
            if starved {
                return Poll::Pending;
            }
        }
        Poll::Ready(Ok(()))
    }

    fn poll_body(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        if let Some(late) = &mut self.held_back {
            ready!(late.as_mut().poll(context));
            self.held_back = None;
        }
        let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
        self.untouched = false;
        match frame {
            Some(Ok(frame)) => match frame.into_data() {
                Ok(data) => self.data(data)?,
                Err(frame) => self.end(frame.trailers_ref())?,
            },
            None => self.end(None)?,
            Some(Err(error)) => return Poll::Ready(Err(Broken::Body(error))),
        }
        Poll::Ready(Ok(()))
    }

    fn data(&mut self, data: Bytes) -> Result<(), Broken> {
        match &mut self.framing {
            Framing::Length(left) => {
                *left = left
                    .checked_sub(data.len() as u64)
                    .ok_or(Broken::Length("longer"))?;
                self.over = *left == 0;
                self.output.data(data, b"");
            }
            Framing::Chunked if data.is_empty() => {}
            Framing::Chunked => {
                self.over = self.body.is_end_stream();
                self.output.chunk(data, self.over);
            }
        }
        Ok(())
    }

    fn end(&mut self, trailers: Option<&HeaderMap>) -> Result<(), Broken> {
        self.over = true;
        match self.framing {
            Framing::Length(0) => {}
            Framing::Length(_) => return Err(Broken::Length("shorter")),
            Framing::Chunked => self.output.last_chunk(trailers),
        }
        Ok(())
    }

    /// The node wants the body now.
    pub(super) fn let_go(&mut self) {
        self.held_back = None;
    }

    /// The node has answered and will not ask for a body that is still held back.
    pub(super) fn is_held_back(&self) -> bool {
        self.held_back.is_some()
    }

    /// The node has the whole request.
    pub(super) fn is_sent(&self) -> bool {
        self.sent
    }

    /// Bytes that the node has taken.
    pub(super) fn moved(&self) -> u64 {
        self.output.moved()
    }

    /// The body again, when not a byte of the request was sent.
    pub(in crate::upstream) fn unsent(self) -> Option<Body> {
        (self.untouched && self.output.moved() == 0).then_some(self.body)
    }
}

/// The length that the device told; it was checked when it was read.
fn declared(fields: &HeaderMap) -> Result<Option<u64>, &'static str> {
    let mut values = fields.get_all(CONTENT_LENGTH).iter();
    match (values.next(), values.next()) {
        (None, _) => Ok(None),
        (Some(length), None) => match decimal(length.as_bytes()) {
            Some(length) => Ok(Some(length)),
            None => Err("a length that is none"),
        },
        (Some(_), Some(_)) => Err("two lengths"),
    }
}

/// How long a node may think about `Expect: 100-continue` before it is sent the body anyway.
const CONTINUE_LIMIT: Duration = Duration::from_secs(1);
