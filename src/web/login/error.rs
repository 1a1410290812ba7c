//! Every way in which a login can fail, and what the person is told of each.

use http::StatusCode;

use super::{FormError, MAX_FORM};
use crate::{auth, session::Full, web::body};

/// Why a request has no session, or its page no answer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The request broke off.
    #[error("the form broke off")]
    Body(#[source] body::Error),
    /// Not a form.
    #[error("the body is not a form")]
    ContentType,
    /// A form from somebody else's page.
    #[error("the form is too old, or comes from another page")]
    Forged,
    /// Not a form that we sent.
    #[error(transparent)]
    Form(#[from] FormError),
    /// A credential that cannot be read.
    #[error("{0}")]
    Header(&'static str),
    /// No room for another session.
    #[error(transparent)]
    Limited(#[from] Full),
    /// A link of a hand-over that is over, or was for another browser.
    #[error("the link is too old, used, or for another browser")]
    Link,
    /// The page is not for this method; it is for these.
    #[error("only {0} here")]
    Method(&'static str),
    /// No page.
    #[error("no such page")]
    NotFound,
    /// The credential is not good.
    #[error(transparent)]
    Rejected(auth::Error),
    /// No credential.
    #[error("no credential")]
    Required,
    /// A credential of a kind that is not taken here.
    #[error("a credential of another scheme")]
    Scheme,
    /// The form came too slowly.
    #[error("the form took too long")]
    Slow,
    /// A device token that is unknown, revoked or over.
    #[error("an unknown device token")]
    Token,
    /// The form is too large.
    #[error("the form is larger than {MAX_FORM} bytes")]
    TooLarge,
    /// Nobody can tell now.
    #[error(transparent)]
    Unavailable(auth::Error),
}

impl Error {
    /// The status, for other answers than those to tunnels.
    pub fn status(&self) -> StatusCode {
        match self {
            Self::Body(_) | Self::Form(_) | Self::Header(_) | Self::Link => StatusCode::BAD_REQUEST,
            Self::ContentType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::Forged => StatusCode::FORBIDDEN,
            Self::Limited(_) | Self::Unavailable(_) => StatusCode::SERVICE_UNAVAILABLE,
            Self::Method(_) => StatusCode::METHOD_NOT_ALLOWED,
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::Rejected(_) | Self::Required | Self::Scheme | Self::Token => {
                StatusCode::UNAUTHORIZED
            }
            Self::Slow => StatusCode::REQUEST_TIMEOUT,
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        }
    }

    /// What the person is told.
    pub fn sentence(&self) -> &'static str {
        match self {
            Self::Body(_) | Self::ContentType | Self::Form(_) | Self::Header(_) => {
                "The request cannot be understood."
            }
            Self::Forged => STALE,
            Self::Limited(_) => "Too many people are logged in. Please try again later.",
            Self::Link => "This link is too old or was used. Please open the page again.",
            Self::Method(_) => "This page cannot be used like that.",
            Self::NotFound => "There is no such page.",
            Self::Rejected(_) | Self::Scheme | Self::Token => WRONG,
            Self::Required => "Please log in.",
            Self::Slow => "The form took too long.",
            Self::TooLarge => "The form is too large.",
            Self::Unavailable(_) => {
                "Nobody can be logged in at the moment. Please try again later."
            }
        }
    }
}

impl From<auth::Error> for Error {
    fn from(error: auth::Error) -> Self {
        match error {
            auth::Error::Rejected { .. } => Self::Rejected(error),
            auth::Error::Busy | auth::Error::Unavailable(_) | auth::Error::Users { .. } => {
                Self::Unavailable(error)
            }
        }
    }
}

/// One sentence for every credential that is not good: wrong, unknown or slowed down.
pub(super) const WRONG: &str =
    "The user name or the password is not right, or there were too many tries.";
pub(super) const STALE: &str =
    "The page was open for too long, or cookies are off. Please try again.";
