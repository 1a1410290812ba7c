//! Guard: what an LDAP server sends reaches the LDAP library only as whole, sane BER messages.
//!
//! The library reads nested values by recursion, takes an impossible length for "more to come",
//! has no limit on a message, and panics on an answer that is none. A server, or whoever sits
//! before it, could end the process with 48 kB. So the library gets one end of a socket pair, and
//! what comes to it passes here.

#![warn(clippy::arithmetic_side_effects)]

use std::{io, os::unix, time::Duration};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::UnixStream,
    time::timeout,
};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::shutdown::Tasks;

mod shape;

/// Gives the library's end of a guarded connection. It works until `stop` fires, either side
/// closes, the server sends something insane, or takes nothing for `stall`.
pub(super) fn open<S>(
    server: S,
    max_message: usize,
    stall: Duration,
    stop: CancellationToken,
    tasks: &Tasks,
) -> io::Result<unix::net::UnixStream>
where
    S: AsyncRead + AsyncWrite + Send + 'static,
{
    let (ours, theirs) = UnixStream::pair()?;
    let theirs = theirs.into_std()?;
    drop(tasks.spawn(async move {
        let (mut from_server, mut to_server) = tokio::io::split(server);
        let (mut from_library, mut to_library) = ours.into_split();
        tokio::select! {
            () = stop.cancelled() => {}
            () = outward(&mut from_library, &mut to_server, stall) => {}
            result = inward(&mut from_server, &mut to_library, max_message) => {
                if let Err(error) = result {
                    warn!(%error, "a directory's connection is closed");
                }
            }
        }
    }));
    Ok(theirs)
}

/// What the library says is short and trusted: it is copied as it is.
async fn outward<R, W>(library: &mut R, server: &mut W, stall: Duration)
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let mut buffer = vec![0; 4096];
    while let Ok(count @ 1..) = library.read(&mut buffer).await {
        let bytes = buffer.get(..count).unwrap_or_default();
        let written = timeout(stall, async {
            server.write_all(bytes).await?;
            server.flush().await
        });
        if !matches!(written.await, Ok(Ok(()))) {
            return;
        }
    }
}

async fn inward<R, W>(server: &mut R, library: &mut W, max: usize) -> Result<(), Error>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let mut buffer = Vec::new();
    loop {
        let mut passed = 0_usize;
        while let Some(length) = message(buffer.get(passed..).unwrap_or_default(), max)? {
            passed = passed.saturating_add(length);
        }
        if passed > 0 {
            let whole = buffer.get(..passed).unwrap_or_default();
            library.write_all(whole).await.map_err(Error::Library)?;
            buffer.drain(..passed);
        }
        if buffer.is_empty() {
            // A large answer must not hold its memory while the connection is idle.
            buffer = Vec::new();
        }
        buffer.reserve(4096);
        if server.read_buf(&mut buffer).await.map_err(Error::Server)? == 0 {
            return Ok(());
        }
    }
}

/// The length of the whole message at the start of `bytes`; `None` while it is not complete.
///
/// A message is a SEQUENCE of definite length (RFC 4511, section 5.1) whose nested lengths fit
/// in each other, and which is an answer. It is looked through once, when it is complete.
pub(super) fn message(bytes: &[u8], max: usize) -> Result<Option<usize>, Error> {
    let Some(&first) = bytes.first() else {
        return Ok(None);
    };
    if first != SEQUENCE {
        return Err(Error::NotAMessage(first));
    }
    let Some((header, content)) = length(bytes.get(1..).unwrap_or_default())? else {
        return Ok(None);
    };
    let total = header.saturating_add(content).saturating_add(1);
    if total > max {
        return Err(Error::TooLarge(max));
    }
    let Some(whole) = bytes.get(..total) else {
        return Ok(None);
    };
    walk(whole)?;
    if !shape::is_answer(whole) {
        return Err(Error::Shape);
    }
    Ok(Some(total))
}

/// Looks at every value of a complete message, without recursion.
fn walk(whole: &[u8]) -> Result<(), Error> {
    // The ends of the values that are open, innermost last.
    let mut ends = [0_usize; MAX_DEPTH];
    let mut depth = 0_usize;
    let mut place = 0_usize;
    loop {
        while depth > 0 {
            let end = depth.checked_sub(1).and_then(|inner| ends.get(inner));
            if end != Some(&place) {
                break;
            }
            depth = depth.saturating_sub(1);
        }
        if place == whole.len() {
            return Ok(());
        }
        let end = match depth.checked_sub(1).and_then(|inner| ends.get(inner)) {
            Some(&end) => end,
            None => whole.len(),
        };
        let value = whole.get(place..end).ok_or(Error::Lengths)?;
        let (&tag, rest) = value.split_first().ok_or(Error::Lengths)?;
        if tag & TAG_NUMBER == TAG_NUMBER {
            return Err(Error::Tag);
        }
        // The whole is here: a length that is cut off lies.
        let (header, content) = length(rest)?.ok_or(Error::Lengths)?;
        let start = place.saturating_add(1).saturating_add(header);
        let stop = start.saturating_add(content);
        if stop > end {
            return Err(Error::Lengths);
        }
        if tag & CONSTRUCTED == 0 {
            place = stop;
        } else {
            *ends.get_mut(depth).ok_or(Error::Depth)? = stop;
            depth = depth.saturating_add(1);
            place = start;
        }
    }
}

/// Octets that a length takes and the length; `None` while it is not complete.
fn length(bytes: &[u8]) -> Result<Option<(usize, usize)>, Error> {
    let Some((&first, rest)) = bytes.split_first() else {
        return Ok(None);
    };
    let count = usize::from(first & 0x7f);
    if first & 0x80 == 0 {
        return Ok(Some((1, count)));
    }
    // 0 is the indefinite form, which RFC 4511, section 5.1, forbids; over 4 GiB is no message.
    if count == 0 || count > 4 {
        return Err(Error::LengthForm);
    }
    let Some(octets) = rest.get(..count) else {
        return Ok(None);
    };
    let value = octets
        .iter()
        .fold(0_u64, |value, octet| (value << 8) | u64::from(*octet));
    let value = usize::try_from(value).map_err(|_too_large| Error::LengthForm)?;
    Ok(Some((count.saturating_add(1), value)))
}

/// What a directory must not send.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error("values are nested more than {MAX_DEPTH} deep")]
    Depth,
    #[error("a length is indefinite or of more than four octets")]
    LengthForm,
    #[error("a value is longer than the one that it is in")]
    Lengths,
    #[error("passing on a message")]
    Library(#[source] io::Error),
    #[error("octet {0:#04x} begins no message")]
    NotAMessage(u8),
    #[error("a message that is no answer")]
    Shape,
    #[error("reading from the server")]
    Server(#[source] io::Error),
    #[error("a tag of more than one octet")]
    Tag,
    #[error("a message has more than {0} bytes")]
    TooLarge(usize),
}

const SEQUENCE: u8 = 0x30;
const CONSTRUCTED: u8 = 0x20;
const TAG_NUMBER: u8 = 0x1f;
const MAX_DEPTH: usize = 16;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A `BindResponse` with `success`.
    const BIND_OK: &[u8] = b"\x30\x0c\x02\x01\x01\x61\x07\x0a\x01\x00\x04\x00\x04\x00";

    fn nested(levels: usize) -> Vec<u8> {
        let mut message = Vec::new();
        for _ in 0..levels {
            let mut outer = vec![0x30, 0x84];
            outer.extend(u32::try_from(message.len()).unwrap().to_be_bytes());
            outer.append(&mut message);
            message = outer;
        }
        message
    }

    #[test]
    fn a_whole_message_passes_and_the_next_is_left() {
        let two = [BIND_OK, BIND_OK].concat();
        assert_eq!(message(&two, 1000).unwrap(), Some(BIND_OK.len()));
    }

    #[test]
    fn a_message_cut_anywhere_waits_for_the_rest() {
        for cut in 0..BIND_OK.len() {
            assert_eq!(
                message(&BIND_OK[..cut], 1000).unwrap(),
                None,
                "cut at {cut}"
            );
        }
    }

    #[test]
    fn lengths_of_four_octets_pass_as_active_directory_sends_them() {
        let message_ = b"\x30\x84\x00\x00\x00\x10\x02\x01\x01\x61\x84\x00\x00\x00\x07\x0a\x01\x00\x04\x00\x04\x00";
        assert_eq!(message(message_, 1000).unwrap(), Some(message_.len()));
    }

    #[test]
    fn depth_is_bounded() {
        assert!(matches!(message(&nested(16), 1 << 20), Err(Error::Shape)));
        assert!(matches!(message(&nested(17), 1 << 20), Err(Error::Depth)));
        assert!(matches!(message(&nested(8000), 1 << 20), Err(Error::Depth)));
    }

    #[test]
    fn an_inner_length_beyond_the_outer_is_refused() {
        let lie = b"\x30\x05\x02\x01\x01\x61\x07";
        assert!(matches!(message(lie, 1000), Err(Error::Lengths)));
        let cut = b"\x30\x04\x02\x01\x01\x61";
        assert!(matches!(message(cut, 1000), Err(Error::Lengths)));
    }

    #[test]
    fn an_endless_message_is_refused_at_its_header() {
        assert!(matches!(
            message(b"\x30\x84\x7f\xff\xff\xff", 1 << 20),
            Err(Error::TooLarge(_))
        ));
        assert!(matches!(message(b"\x30\x80", 1000), Err(Error::LengthForm)));
        assert!(matches!(message(b"\x30\x85", 1000), Err(Error::LengthForm)));
    }

    #[test]
    fn long_tags_and_other_beginnings_are_refused() {
        assert!(matches!(
            message(b"\x30\x03\x1f\x01\x00", 99),
            Err(Error::Tag)
        ));
        assert!(matches!(
            message(b"\x16\x03\x01", 99),
            Err(Error::NotAMessage(0x16))
        ));
    }

    proptest! {
        #[test]
        fn no_bytes_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _any = message(&bytes, 200);
            if let Some(first) = bytes.first_mut() { *first = 0x30; }
            let _sequence = message(&bytes, 200);
        }
    }

    #[tokio::test]
    async fn only_sane_messages_reach_the_library() {
        let tasks = Tasks::new();
        let (server, mut other) = tokio::io::duplex(1 << 16);
        let stop = CancellationToken::new();
        let library = open(server, 1 << 20, Duration::from_secs(5), stop, &tasks).unwrap();
        library.set_nonblocking(true).unwrap();
        let mut library = UnixStream::from_std(library).unwrap();

        for byte in BIND_OK {
            other.write_all(&[*byte]).await.unwrap();
        }
        let mut got = [0; BIND_OK.len()];
        library.read_exact(&mut got).await.unwrap();
        assert_eq!(got, BIND_OK);

        // The other end may be closed before all of it is written.
        let _closed = other.write_all(&nested(8000)).await;
        let mut rest = Vec::new();
        library.read_to_end(&mut rest).await.unwrap();
        assert!(rest.is_empty());
    }
}
