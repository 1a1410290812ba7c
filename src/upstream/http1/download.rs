//! An answer's body on its way from a node, straight from the connection.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes};
use http::HeaderMap;
use http_body::{Frame, SizeHint};

use super::{Broken, Http1, SMALL, head_limits, upload::Upload};
use crate::{
    upstream::{body::Source, connection::Home},
    web::{
        chunked::{Decoder, Piece},
        head::response::Framing,
        headers,
    },
};

/// A body that is being read. Dropping it before its end closes the connection.
#[derive(Debug)]
pub(super) struct Download {
    pub(super) connection: Box<Http1>,
    /// The request, while it is still being sent.
    pub(super) upload: Option<Box<Upload>>,
    pub(super) rest: Rest,
    pub(super) home: Option<Home>,
}

/// What of a body is still to come.
#[derive(Debug)]
pub(super) enum Rest {
    /// Chunks. The piece after the last one handed on, where it is there already: only so is the
    /// end known with the last bytes.
    Chunked(Box<Decoder>, Option<Piece>),
    /// Until the connection ends.
    Close,
    /// This many bytes.
    Length(u64),
}

impl Rest {
    pub(super) fn new(framing: Framing) -> Self {
        match framing {
            Framing::Chunked => Self::Chunked(Box::new(Decoder::new(head_limits())), None),
            Framing::Close => Self::Close,
            Framing::Length(length) => Self::Length(length),
        }
    }
}

impl Download {
    fn poll_piece(&mut self, context: &mut Context<'_>) -> Poll<Result<Piece, Broken>> {
        loop {
            let piece = match &mut self.rest {
                Rest::Length(0) => Piece::End(HeaderMap::new()),
                Rest::Length(left) => {
                    let here = self.connection.take(*left);
                    *left = left.saturating_sub(here.len() as u64);
                    Piece::Data(here)
                }
                Rest::Close => Piece::Data(self.connection.take(u64::MAX)),
                Rest::Chunked(decoder, next) => match next.take() {
                    Some(piece) => piece,
                    None => decoder.decode(&mut self.connection.buffer)?,
                },
            };
            match piece {
                Piece::Data(data) if !data.is_empty() => {
                    return Poll::Ready(self.look_ahead(data).map(Piece::Data));
                }
                Piece::End(trailers) => return Poll::Ready(Ok(Piece::End(trailers))),
                Piece::Data(_) | Piece::More => {}
            }
            if ready!(self.connection.poll_fill(context)).map_err(Broken::Read)? == 0 {
                return Poll::Ready(match self.rest {
                    Rest::Close => Ok(Piece::End(HeaderMap::new())),
                    Rest::Chunked(..) | Rest::Length(_) => Err(Broken::Closed),
                });
            }
        }
    }

    /// Sees whether these bytes were the last.
    fn look_ahead(&mut self, data: Bytes) -> Result<Bytes, Broken> {
        let Rest::Chunked(decoder, next) = &mut self.rest else {
            return Ok(data);
        };
        // A slow device would hold a whole block for a small chunk.
        let data = if data.len() <= SMALL {
            Bytes::copy_from_slice(&data)
        } else {
            data
        };
        *next = match decoder.decode(&mut self.connection.buffer)? {
            Piece::More => None,
            piece @ (Piece::Data(_) | Piece::End(_)) => Some(piece),
        };
        Ok(data)
    }
}

impl http_body::Body for Download {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        let this = &mut *self;
        if let Some(upload) = &mut this.upload {
            match upload.poll(context, &mut this.connection.stream) {
                Poll::Pending => {}
                Poll::Ready(Ok(())) => this.upload = None,
                // A node that wants no more may have said why.
                Poll::Ready(Err(Broken::Write(_))) => {
                    this.upload = None;
                    this.connection.keep = false;
                }
                Poll::Ready(Err(error)) => return Poll::Ready(Some(Err(error))),
            }
        }
        let piece = ready!(this.poll_piece(context))?;
        Poll::Ready(match piece {
            Piece::Data(data) => Some(Ok(Frame::data(data))),
            Piece::End(mut trailers) => {
                this.rest = Rest::Length(0);
                headers::clean_trailers(&mut trailers);
                (!trailers.is_empty()).then(|| Ok(Frame::trailers(trailers)))
            }
            Piece::More => None,
        })
    }

    fn is_end_stream(&self) -> bool {
        match &self.rest {
            Rest::Length(left) => *left == 0,
            Rest::Chunked(_, Some(Piece::End(trailers))) => trailers.is_empty(),
            Rest::Chunked(..) | Rest::Close => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self.rest {
            Rest::Length(left) => SizeHint::with_exact(left),
            Rest::Chunked(..) | Rest::Close => SizeHint::default(),
        }
    }
}

impl Source for Download {
    fn sent(&self) -> u64 {
        self.upload.as_ref().map_or(0, |upload| upload.moved())
    }

    fn finish(self) {
        // A node that answered before it had the whole request may not want to read the rest of
        // it: that would be its next request (R20).
        if self.upload.is_none()
            && let Some(home) = self.home
        {
            home.take_back(self.connection);
        }
    }
}

impl Http1 {
    /// Takes up to `limit` bytes out of the buffer. A slow device would hold a whole block for a
    /// few of them: those are copied.
    fn take(&mut self, limit: u64) -> Bytes {
        let length = usize::try_from(limit)
            .unwrap_or(usize::MAX)
            .min(self.buffer.len());
        if length > SMALL {
            return self.buffer.split_to(length).freeze();
        }
        let copy = Bytes::copy_from_slice(self.buffer.get(..length).unwrap_or_default());
        self.buffer.advance(copy.len());
        copy
    }
}
