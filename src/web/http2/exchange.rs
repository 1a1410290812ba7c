//! One stream: a request, its answer, and the tunnel that may follow.

use std::{
    future::{Future, poll_fn},
    pin::{Pin, pin},
    sync::Arc,
    task::Poll,
};

use bytes::Bytes;
use h2::{Reason, RecvStream, server::SendResponse};
use http::{Method, Request, Response, StatusCode};
use tracing::debug;

use super::{
    answer, request,
    tunnel::Tunnel,
    upload::{Unread, Upload},
};
use crate::{
    config::Limits,
    shutdown::Tasks,
    web::{Answer, Body, Handler, NOT_TAKEN, Protocol, Stream, Takeover},
};

/// What the streams of one connection share.
pub(super) struct Exchanges<H> {
    pub(super) handler: Arc<H>,
    pub(super) limits: Arc<Limits>,
    pub(super) unread: Arc<Unread>,
    pub(super) tasks: Tasks,
}

/// How a stream ended, as far as its connection has to know.
pub(super) enum Outcome {
    /// The device has its answer.
    Complete,
    /// The device gave it up, or did not get on.
    GivenUp,
    /// Neither.
    Over,
    /// It goes on as a tunnel.
    Taken(Pin<Box<dyn Future<Output = Self> + Send>>),
}

impl<H: Handler> Exchanges<H> {
    /// Answers one request. A panic ends its stream alone.
    pub(super) async fn run(
        self: Arc<Self>,
        request: Request<RecvStream>,
        mut respond: SendResponse<Bytes>,
    ) -> Outcome {
        let answered = {
            // Pinned where it is made: each hand that a future goes through copies all of it.
            let answer = pin!(self.answer(request, &mut respond));
            self.tasks.caught(answer).await
        };
        answered.unwrap_or_else(|| {
            respond.send_reset(Reason::INTERNAL_ERROR);
            Outcome::Over
        })
    }

    async fn answer(
        self: &Arc<Self>,
        mut request: Request<RecvStream>,
        respond: &mut SendResponse<Bytes>,
    ) -> Outcome {
        let to_head = request.method() == Method::HEAD;
        let connect = request.method() == Method::CONNECT;
        let checked = request::check(&mut request, &self.limits);
        let extended = request.extensions().get::<Protocol>().is_some();
        let (head, stream) = request.into_parts();
        // What follows the head of a CONNECT is no body.
        let (body, raw) = if connect {
            (Body::empty(), Some(stream))
        } else {
            let body = Upload::body(stream, &head.headers, &self.limits, &self.unread);
            (body, None)
        };
        let answer = match checked {
            Err(refusal) => {
                drop(body);
                Answer::from(self.handler.refuse(&refusal))
            }
            Ok(()) => {
                let call = pin!(self.handler.call(Request::from_parts(head, body)));
                match unless_reset(call, respond).await {
                    Ok(answer) => answer,
                    Err(outcome) => return outcome,
                }
            }
        };
        let Answer { response, then } = answer;
        let opens = connect && response.status().is_success();
        let response = match (raw, then) {
            (Some(stream), Some(then)) if opens => {
                return self.open(response, then, respond, |send| {
                    Tunnel::new(send, stream, extended)
                });
            }
            (raw, _) => {
                if let Some(stream) = raw {
                    self.unread.leave(stream);
                }
                // Bytes after such a head would be raw, and nobody is there to take them (R18).
                if opens || response.status() == StatusCode::SWITCHING_PROTOCOLS {
                    self.handler.refuse(&NOT_TAKEN)
                } else {
                    response
                }
            }
        };
        match answer::send(response, to_head, respond, self.limits.body_progress).await {
            Ok(()) => Outcome::Complete,
            Err(failure) => {
                debug!(error = %failure, "an answer was cut off");
                if failure.is_by_device() {
                    Outcome::GivenUp
                } else {
                    Outcome::Over
                }
            }
        }
    }

    fn open(
        self: &Arc<Self>,
        response: Response<Body>,
        then: Takeover,
        respond: &mut SendResponse<Bytes>,
        tunnel: impl FnOnce(h2::SendStream<Bytes>) -> Tunnel,
    ) -> Outcome {
        match answer::open(response.map(drop), respond) {
            Ok(send) => {
                let taken = then(Stream::Http2(tunnel(send)));
                let exchanges = Arc::clone(self);
                Outcome::Taken(Box::pin(async move {
                    exchanges.tasks.caught(taken).await;
                    Outcome::Over
                }))
            }
            Err(error) => {
                debug!(%error, "a tunnel was not opened");
                Outcome::GivenUp
            }
        }
    }
}

/// Waits for a handler as long as the device wants its answer.
async fn unless_reset(
    mut call: Pin<&mut impl Future<Output = Answer>>,
    respond: &mut SendResponse<Bytes>,
) -> Result<Answer, Outcome> {
    poll_fn(|context| match respond.poll_reset(context) {
        Poll::Ready(Ok(_reason)) => Poll::Ready(Err(Outcome::GivenUp)),
        Poll::Ready(Err(_connection)) => Poll::Ready(Err(Outcome::Over)),
        Poll::Pending => call.as_mut().poll(context).map(Ok),
    })
    .await
}
