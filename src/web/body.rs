//! Body: what a request or an answer carries, whichever protocol brought it.

use std::{
    fmt,
    future::poll_fn,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Bytes, BytesMut};
use http_body::{Body as _, Frame, SizeHint};

/// The body of a request or an answer; streaming, never collected.
#[derive(Default)]
pub struct Body(Kind);

#[derive(Default)]
enum Kind {
    #[default]
    Empty,
    Full(Bytes),
    Stream(Pin<Box<dyn http_body::Body<Data = Bytes, Error = Error> + Send>>),
}

impl Body {
    /// No bytes.
    pub fn empty() -> Self {
        Self::default()
    }

    /// These bytes.
    pub fn full(bytes: impl Into<Bytes>) -> Self {
        Self(Kind::Full(bytes.into()))
    }

    /// Frames as they come. `stream` brings its own limits.
    pub fn stream<B>(stream: B) -> Self
    where
        B: http_body::Body<Data = Bytes, Error = Error> + Send + 'static,
    {
        Self::boxed(Box::new(stream))
    }

    /// The same for a stream that is in a box already.
    pub fn boxed<B>(stream: Box<B>) -> Self
    where
        B: http_body::Body<Data = Bytes, Error = Error> + Send + 'static,
    {
        Self(Kind::Stream(Box::into_pin(stream)))
    }

    /// The same body, failing with [`Error::TooLarge`] as soon as it is known to exceed `limit`.
    pub fn limited(self, limit: u64) -> Self {
        match http_body::Body::size_hint(&self).upper() {
            Some(upper) if upper <= limit => self,
            _ => Self::stream(Limited {
                body: self,
                limit,
                left: limit,
            }),
        }
    }

    /// All bytes, for small bodies that the gateway itself reads. Trailers are dropped.
    ///
    /// # Errors
    ///
    /// When the body breaks off, or has more than `limit` bytes.
    pub async fn collect(self, limit: u64) -> Result<Bytes, Error> {
        let mut body = self.limited(limit);
        let mut all = BytesMut::new();
        while let Some(frame) = poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await {
            if let Ok(data) = frame?.into_data() {
                if all.is_empty() && http_body::Body::is_end_stream(&body) {
                    return Ok(data);
                }
                all.extend_from_slice(&data);
            }
        }
        Ok(all.freeze())
    }
}

/// A body that may not have more than so many bytes.
struct Limited {
    body: Body,
    limit: u64,
    left: u64,
}

impl http_body::Body for Limited {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        if self.body.size_hint().lower() > self.left {
            return Poll::Ready(Some(Err(Error::TooLarge(self.limit))));
        }
        let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
        if let Some(Ok(frame)) = &frame {
            let length = frame.data_ref().map_or(0, |data| data.len() as u64);
            match self.left.checked_sub(length) {
                Some(left) => self.left = left,
                None => return Poll::Ready(Some(Err(Error::TooLarge(self.limit)))),
            }
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

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        match &mut self.0 {
            Kind::Empty => Poll::Ready(None),
            Kind::Full(bytes) => {
                let bytes = std::mem::take(bytes);
                self.0 = Kind::Empty;
                if bytes.is_empty() {
                    return Poll::Ready(None);
                }
                Poll::Ready(Some(Ok(Frame::data(bytes))))
            }
            // An empty frame says nothing, and some peers close an HTTP/2 connection that carries
            // more than a hundred of them.
            Kind::Stream(stream) => loop {
                match ready!(stream.as_mut().poll_frame(context)) {
                    Some(Ok(frame)) if frame.data_ref().is_some_and(Bytes::is_empty) => {}
                    other => return Poll::Ready(other),
                }
            },
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Kind::Empty => true,
            Kind::Full(bytes) => bytes.is_empty(),
            Kind::Stream(stream) => stream.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Kind::Empty => SizeHint::with_exact(0),
            Kind::Full(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Kind::Stream(stream) => stream.size_hint(),
        }
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            Kind::Empty => "Body(empty)",
            Kind::Full(_) => "Body(full)",
            Kind::Stream(_) => "Body(stream)",
        })
    }
}

/// Why a body ended before its end.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The node broke off its answer.
    #[error("the node broke off its answer")]
    Backend(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The device's connection broke off.
    #[error("the device broke off its request")]
    Device(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The device's framing was wrong inside the body.
    #[error("the framing of the request's body is broken: {0}")]
    Framing(&'static str),
    /// No byte came for the configured time.
    #[error("no byte of the body came for {0:?}")]
    Slow(std::time::Duration),
    /// More bytes than the app takes.
    #[error("the body is larger than {0} bytes")]
    TooLarge(u64),
}
