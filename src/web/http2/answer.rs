//! Sends an answer: head, body and trailers, as fast as the device takes them.

use std::{
    future::poll_fn,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use h2::{Reason, SendStream, server::SendResponse};
use http::{
    HeaderMap, HeaderName, Response, StatusCode,
    header::{CONNECTION, CONTENT_LENGTH, DATE, TE, TRANSFER_ENCODING, UPGRADE},
};
use http_body::{Body as _, Frame};
use tokio::time::timeout;

use crate::web::{Body, body, date, head};

/// Sends all of an answer. `to_head`: the request was `HEAD`.
///
/// # Errors
///
/// When the device does not get all of it; its stream is reset then.
pub(super) async fn send(
    response: Response<Body>,
    to_head: bool,
    respond: &mut SendResponse<Bytes>,
    patience: Duration,
) -> Result<(), Failure> {
    let (mut parts, mut body) = response.into_parts();
    let bodiless = to_head
        || parts.status == StatusCode::NO_CONTENT
        || parts.status == StatusCode::NOT_MODIFIED;
    let length = body.size_hint().exact().filter(|&length| length > 0);
    if let Some(length) = length.filter(|_length| to_head || !bodiless) {
        let entry = parts.headers.entry(CONTENT_LENGTH);
        entry.or_insert_with(|| length.into());
    }
    if bodiless {
        body = Body::empty();
    }
    clean(&mut parts.headers);
    let mut lengths = parts.headers.get_all(CONTENT_LENGTH).iter();
    let length = lengths
        .next()
        .and_then(|length| head::decimal(length.as_bytes()));
    let over = body.is_end_stream();
    if over && !bodiless && length.is_some_and(|length| length > 0) {
        let failure = Failure::Length("shorter");
        respond.send_reset(failure.reason());
        return Err(failure);
    }
    let stream = respond
        .send_response(Response::from_parts(parts, ()), over)
        .map_err(Failure::Device)?;
    if over {
        return Ok(());
    }
    let mut sending = Sending {
        stream,
        left: length,
        patience,
    };
    let sent = sending.body(body).await;
    if let Err(failure) = &sent {
        sending.stream.send_reset(failure.reason());
    }
    sent
}

/// The head of an answer that opens a tunnel.
pub(super) fn open(
    mut response: Response<()>,
    respond: &mut SendResponse<Bytes>,
) -> Result<SendStream<Bytes>, h2::Error> {
    // There is no length to it (RFC 9110, section 9.3.6).
    response.headers_mut().remove(CONTENT_LENGTH);
    clean(response.headers_mut());
    respond.send_response(response, false)
}

/// How many of `wanted` bytes the device and our own buffer have room for; at least one.
///
/// # Errors
///
/// When the stream is over.
pub(super) fn poll_room(
    stream: &mut SendStream<Bytes>,
    context: &mut Context<'_>,
    wanted: usize,
) -> Poll<Result<usize, h2::Error>> {
    // Never for what is not there yet: it would be taken away from the connection's other streams.
    stream.reserve_capacity(wanted);
    loop {
        match stream.capacity() {
            0 => match ready!(stream.poll_capacity(context)) {
                Some(room) => drop(room?),
                None => return Poll::Ready(Err(Reason::STREAM_CLOSED.into())),
            },
            room => return Poll::Ready(Ok(room.min(wanted))),
        }
    }
}

struct Sending {
    stream: SendStream<Bytes>,
    /// What `Content-Length` says is still to come.
    left: Option<u64>,
    patience: Duration,
}

impl Sending {
    async fn body(&mut self, mut body: Body) -> Result<(), Failure> {
        while let Some(frame) = self.next(&mut body).await? {
            match frame.into_data() {
                Ok(data) => {
                    let over = body.is_end_stream();
                    self.data(data, over).await?;
                    if over {
                        return Ok(());
                    }
                }
                Err(frame) => {
                    self.check_end()?;
                    let trailers = frame.into_trailers().unwrap_or_default();
                    return self.stream.send_trailers(trailers).map_err(Failure::Device);
                }
            }
        }
        self.check_end()?;
        self.stream
            .send_data(Bytes::new(), true)
            .map_err(Failure::Device)
    }

    /// What the backend sends next, unless the device does not want it any more.
    async fn next(&mut self, body: &mut Body) -> Result<Option<Frame<Bytes>>, Failure> {
        poll_fn(|context| {
            if let Poll::Ready(frame) = Pin::new(&mut *body).poll_frame(context) {
                return Poll::Ready(frame.transpose().map_err(Failure::Body));
            }
            let reset = ready!(self.stream.poll_reset(context));
            Poll::Ready(Err(Failure::Device(match reset {
                Ok(reason) => reason.into(),
                Err(error) => error,
            })))
        })
        .await
    }

    async fn data(&mut self, mut data: Bytes, over: bool) -> Result<(), Failure> {
        if let Some(left) = &mut self.left {
            *left = left
                .checked_sub(data.len() as u64)
                .ok_or(Failure::Length("longer"))?;
        }
        if over {
            self.check_end()?;
        }
        while !data.is_empty() {
            let room = poll_fn(|context| poll_room(&mut self.stream, context, data.len()));
            let room = timeout(self.patience, room)
                .await
                .map_err(|_late| Failure::Slow(self.patience))?
                .map_err(Failure::Device)?;
            let part = data.split_to(room);
            self.stream
                .send_data(part, over && data.is_empty())
                .map_err(Failure::Device)?;
        }
        Ok(())
    }

    fn check_end(&self) -> Result<(), Failure> {
        match self.left {
            None | Some(0) => Ok(()),
            Some(_) => Err(Failure::Length("shorter")),
        }
    }
}

/// Why a device did not get all of an answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    /// The answer's body failed.
    #[error("the answer's body broke off")]
    Body(#[source] body::Error),
    /// The device went, or wants it no more.
    #[error("the device did not take the answer")]
    Device(#[source] h2::Error),
    /// Its body does not fit its length.
    #[error("the answer's body is {0} than its Content-Length")]
    Length(&'static str),
    /// The device made no room.
    #[error("the device took no byte of the answer for {0:?}")]
    Slow(Duration),
}

impl Failure {
    fn reason(&self) -> Reason {
        match self {
            Self::Body(_) | Self::Length(_) => Reason::INTERNAL_ERROR,
            Self::Device(_) | Self::Slow(_) => Reason::CANCEL,
        }
    }

    /// It was the device that gave up, or did not get on.
    pub(super) fn is_by_device(&self) -> bool {
        matches!(self, Self::Device(_) | Self::Slow(_))
    }
}

/// Drops the fields that HTTP/2 does not know (RFC 9113, section 8.2.2), and adds the date.
fn clean(headers: &mut HeaderMap) {
    for name in &OF_HTTP1 {
        headers.remove(name);
    }
    headers.entry(DATE).or_insert_with(date::now);
}

static OF_HTTP1: [HeaderName; 6] = [
    CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    TE,
    TRANSFER_ENCODING,
    UPGRADE,
];
