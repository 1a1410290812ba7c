//! One JSON line for each request and each tunnel: no query strings, no secrets, all escaped.

use std::{
    borrow::Cow,
    cell::Cell,
    fs::{File, OpenOptions},
    io::{self, Write},
    net::SocketAddr,
    os::unix::fs::OpenOptionsExt,
    path::Path,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use serde::Serialize;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use crate::{clock, config::LogOutput, refusal, relay, session};

/// What is known about one request when it ends. Every stage writes what it found out.
#[derive(Debug, Default)]
pub struct Record {
    /// The person, once proven.
    pub user: Option<Arc<str>>,
    /// The session's public id.
    pub session: Option<Arc<str>>,
    /// The app's name.
    pub app: Option<Arc<str>>,
    /// A tunnel's target, or the node's name.
    pub target: Option<Arc<str>>,
    /// Who was dialled.
    pub backend: Option<SocketAddr>,
    /// Policies that decided.
    pub policies: Arc<[Arc<str>]>,
    /// Why it was refused, if it was.
    pub refused: Option<Refused>,
    /// What a tunnel or WebSocket moved; shared with the relay that runs it.
    pub relayed: Option<Arc<Relayed>>,
    /// Keeps the session from being idle while this lasts.
    pub busy: Option<session::Busy>,
    /// A place among the session's tunnels, while this lasts.
    pub held: Option<session::OpenTunnel>,
}

/// What a tunnel or WebSocket moved, and how it ended.
#[derive(Debug, Default)]
pub struct Relayed {
    /// Bytes each way.
    pub counts: Arc<relay::Counts>,
    /// How it ended, once it has.
    pub end: OnceLock<&'static str>,
    /// Why it was ended before its time, if it was.
    refused: OnceLock<Refused>,
}

impl Relayed {
    /// Notes that it is refused from now on, under a fresh id.
    pub fn cut(&self, stage: &'static str, reason: String) {
        let id = refusal::Id::generate();
        // The first reason is the one that ended it.
        let _first = self.refused.set(Refused { id, stage, reason });
    }

    /// Notes how it ended.
    pub fn ended(&self, end: &relay::End) {
        let denied = matches!(end, relay::End::Stopped) && self.refused.get().is_some();
        let label = if denied { "denied" } else { end.label() };
        // It was not set before: a relay runs once.
        let _set = self.end.set(label);
    }
}

/// A refusal as the log tells it; the device is told the id alone.
#[derive(Debug)]
pub struct Refused {
    /// The id that the device was told.
    pub id: refusal::Id,
    /// Which stage refused.
    pub stage: &'static str,
    /// Why, with its causes.
    pub reason: String,
}

impl Record {
    /// Notes a refusal and gives its fresh id.
    pub fn refuse(&mut self, stage: &'static str, reason: impl Into<String>) -> refusal::Id {
        let id = refusal::Id::generate();
        self.refused = Some(Refused {
            id,
            stage,
            reason: reason.into(),
        });
        id
    }
}

/// One line of the log. Empty fields are left out.
#[derive(Debug, Default, Serialize)]
pub struct Line<'a> {
    /// `request`, `tunnel` or `connection`.
    pub kind: &'static str,
    /// Number of the connection.
    pub connection: u64,
    /// The listener's name.
    pub listener: &'a str,
    /// The device's address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device: Option<SocketAddr>,
    /// `HTTP/1.1`, `HTTP/2.0`.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub protocol: &'a str,
    /// Method.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub method: Cow<'a, str>,
    /// Host, without a port.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub host: Cow<'a, str>,
    /// Path, without a query.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub path: Cow<'a, str>,
    /// `User-Agent`, cut at 200 bytes.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub agent: Cow<'a, str>,
    /// Status of the answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// To the answer's head, or the life of a tunnel, in milliseconds.
    pub ms: f64,
    /// Bytes from the device.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub up: Option<u64>,
    /// Bytes to the device.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub down: Option<u64>,
    /// How a tunnel ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub end: Option<&'a str>,
    /// What stages found out.
    #[serde(flatten)]
    pub found: Found<'a>,
}

/// A [`Record`] as it is written.
#[derive(Debug, Default, Serialize)]
pub struct Found<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    session: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    app: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    target: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    backend: Option<SocketAddr>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    policies: &'a [Arc<str>],
    #[serde(skip_serializing_if = "Option::is_none")]
    refusal: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stage: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<Cow<'a, str>>,
}

impl<'a> From<&'a Record> for Found<'a> {
    fn from(record: &'a Record) -> Self {
        let cut = record
            .relayed
            .as_ref()
            .and_then(|relayed| relayed.refused.get());
        let refused = record.refused.as_ref().or(cut);
        Self {
            user: record.user.as_deref().map(printable),
            session: record.session.as_deref(),
            app: record.app.as_deref(),
            target: record.target.as_deref().map(printable),
            backend: record.backend,
            policies: &record.policies,
            refusal: refused.map(|refused| refused.id.as_str()),
            stage: refused.map(|refused| refused.stage),
            reason: refused.map(|refused| printable(&refused.reason)),
        }
    }
}

/// Where lines go. Writing costs the caller a copy into a buffer; a thread of its own writes that
/// out. When the output stands still, lines beyond a limit are dropped and counted.
#[derive(Clone, Debug)]
pub struct AccessLog(Option<Arc<Shared>>);

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    wake: Condvar,
    lost: AtomicU64,
}

#[derive(Debug)]
struct State {
    buffer: Vec<u8>,
    reopen: bool,
    closing: bool,
    written: bool,
}

impl AccessLog {
    /// Opens the output and starts the thread that writes.
    ///
    /// # Errors
    ///
    /// When the file cannot be opened for appending.
    pub fn open(output: &LogOutput) -> io::Result<Self> {
        let (sink, path): (Sink, _) = match output {
            LogOutput::Off => return Ok(Self(None)),
            LogOutput::Stdout => (Sink::Stdout, None),
            LogOutput::File(path) => (Sink::File(append(path)?), Some(path.clone())),
        };
        let shared = Arc::new(Shared {
            state: Mutex::new(State {
                buffer: Vec::new(),
                reopen: false,
                closing: false,
                written: true,
            }),
            wake: Condvar::new(),
            lost: AtomicU64::new(0),
        });
        let writer = Arc::clone(&shared);
        thread::Builder::new()
            .name("access-log".into())
            .spawn(move || write_out(&writer, sink, path.as_deref()))?;
        Ok(Self(Some(shared)))
    }

    /// Writes one line.
    pub fn write(&self, line: &Line<'_>) {
        #[derive(Serialize)]
        struct Stamped<'a> {
            time: Stamp,
            #[serde(flatten)]
            line: &'a Line<'a>,
        }
        let Some(shared) = &self.0 else { return };
        let stamped = Stamped {
            time: Stamp::of(clock::since_epoch()),
            line,
        };
        let mut text = Vec::with_capacity(TYPICAL_LINE);
        if serde_json::to_writer(&mut text, &stamped).is_err() {
            shared.lost.fetch_add(1, Ordering::Relaxed);
            return;
        }
        text.push(b'\n');
        let mut state = shared.lock();
        if state.buffer.len().saturating_add(text.len()) > BUFFER_LIMIT {
            drop(state);
            shared.lost.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let wake = state.buffer.is_empty();
        state.buffer.append(&mut text);
        drop(state);
        if wake {
            shared.wake.notify_all();
        }
    }

    /// Lines that were dropped because the output stood still.
    pub fn lost(&self) -> u64 {
        self.0
            .as_ref()
            .map_or(0, |shared| shared.lost.load(Ordering::Relaxed))
    }

    /// Opens the file again under its name, after somebody moved it away.
    pub fn reopen(&self) {
        if let Some(shared) = &self.0 {
            shared.lock().reopen = true;
            shared.wake.notify_all();
        }
    }

    /// Writes what is buffered, at most for `limit`, and ends the thread.
    pub fn close(&self, limit: Duration) {
        let Some(shared) = &self.0 else { return };
        let mut state = shared.lock();
        state.closing = true;
        shared.wake.notify_all();
        let done = |state: &mut State| !state.written || !state.buffer.is_empty();
        let waited = shared.wake.wait_timeout_while(state, limit, done);
        drop(waited.unwrap_or_else(PoisonError::into_inner));
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

enum Sink {
    File(File),
    Stdout,
}

impl Sink {
    /// Writes all, if it can; says how much it could.
    fn write(&mut self, bytes: &[u8]) -> (usize, io::Result<()>) {
        match self {
            Self::File(file) => write_all(file, bytes),
            Self::Stdout => {
                let mut out = io::stdout().lock();
                let (written, result) = write_all(&mut out, bytes);
                (written, result.and_then(|()| out.flush()))
            }
        }
    }
}

fn write_all(to: &mut impl Write, bytes: &[u8]) -> (usize, io::Result<()>) {
    let mut written: usize = 0;
    while let Some(rest) = bytes.get(written..).filter(|rest| !rest.is_empty()) {
        match to.write(rest) {
            Ok(0) => return (written, Err(io::ErrorKind::WriteZero.into())),
            Ok(more) => written = written.saturating_add(more),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return (written, Err(error)),
        }
    }
    (written, Ok(()))
}

fn write_out(shared: &Shared, mut sink: Sink, path: Option<&Path>) {
    let mut batch = Vec::new();
    loop {
        let mut state = shared.lock();
        while state.buffer.is_empty() && !state.reopen && !state.closing {
            state = shared
                .wake
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
        if state.buffer.is_empty() && state.closing {
            return;
        }
        let reopen = std::mem::take(&mut state.reopen);
        std::mem::swap(&mut state.buffer, &mut batch);
        state.written = false;
        let closing = state.closing;
        drop(state);

        let (written, result) = sink.write(&batch);
        if let Err(error) = result {
            let (out, lost) = batch.split_at_checked(written).unwrap_or((&batch, &[]));
            let lines = lost.iter().filter(|&&b| b == b'\n').count();
            shared.lost.fetch_add(lines as u64, Ordering::Relaxed);
            if out.last().is_some_and(|&last| last != b'\n') {
                // Half a line is out: the next one must not be taken for its other half.
                shared.lock().buffer.splice(..0, *b"\n");
            }
            tracing::error!(%error, lines, "the access log cannot be written");
        }
        batch.clear();
        batch.shrink_to(BATCH_KEPT);
        if reopen && let Some(path) = path {
            match append(path) {
                Ok(file) => sink = Sink::File(file),
                Err(error) => {
                    tracing::error!(%error, path = %path.display(), "the access log cannot be opened again");
                }
            }
        }
        shared.lock().written = true;
        shared.wake.notify_all();
        if !closing {
            // Lines of the next moments go out in one write.
            thread::sleep(GATHER);
        }
    }
}

fn append(path: &Path) -> io::Result<File> {
    // Names of people are in it.
    OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o640)
        .open(path)
}

/// The time of day to the millisecond (RFC 3339).
#[derive(Clone, Copy, Debug)]
struct Stamp([u8; STAMP]);

impl Stamp {
    fn of(since_epoch: Duration) -> Self {
        let second = since_epoch.as_secs();
        let (cached, mut text) = SECOND.get();
        if cached != second {
            text = whole(second);
            SECOND.set((second, text));
        }
        let mut rest = since_epoch.subsec_millis();
        for digit in text.iter_mut().skip(STAMP - 4).take(3).rev() {
            *digit = b'0' | u8::try_from(rest % 10).unwrap_or_default();
            rest /= 10;
        }
        Self(text)
    }
}

impl Serialize for Stamp {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(std::str::from_utf8(&self.0).unwrap_or_default())
    }
}

/// A whole second, with room for its milliseconds.
fn whole(second: u64) -> [u8; STAMP] {
    let mut text = *b"1970-01-01T00:00:00.000Z";
    let time = i64::try_from(second)
        .ok()
        .and_then(|second| OffsetDateTime::from_unix_timestamp(second).ok())
        .and_then(|time| time.format(&Rfc3339).ok())
        .unwrap_or_default();
    // All but the `Z`; a year of five digits has no RFC 3339 form.
    for (to, from) in text.iter_mut().zip(time.bytes()).take(STAMP - 5) {
        *to = from;
    }
    text
}

thread_local! {
    /// The text of a second is made once.
    static SECOND: Cell<(u64, [u8; STAMP])> = Cell::new((0, whole(0)));
}

/// The text with control, line-separating and direction-changing characters written out, so that
/// it cannot forge a line or look like another text.
pub fn printable(text: &str) -> Cow<'_, str> {
    if text.is_ascii() && !text.bytes().any(|b| b.is_ascii_control()) {
        return Cow::Borrowed(text);
    }
    let hidden = |c: char| {
        c.is_control()
            || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
                | '\u{feff}' | '\u{061c}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
    };
    if !text.chars().any(hidden) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len().saturating_add(16));
    for c in text.chars() {
        if hidden(c) {
            out.push_str(&format!("<U+{:04X}>", u32::from(c)));
        } else {
            out.push(c);
        }
    }
    Cow::Owned(out)
}

/// Bytes that wait at most for an output that stands still.
const BUFFER_LIMIT: usize = 8 << 20;

const BATCH_KEPT: usize = 256 << 10;

/// Room that most lines fit in.
const TYPICAL_LINE: usize = 640;

/// `2026-11-22T11:40:00.123Z`.
const STAMP: usize = 24;

const GATHER: Duration = Duration::from_millis(20);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_cannot_be_forged_by_what_a_device_sends() {
        assert_eq!(printable("a\nb"), "a<U+000A>b");
        assert_eq!(printable("a\u{202e}b"), "a<U+202E>b");
        assert_eq!(printable("\u{1b}[2J"), "<U+001B>[2J");
        assert_eq!(printable("Bücher"), "Bücher");
    }

    #[test]
    fn a_stamp_is_rfc_3339_with_three_digits() {
        for (millis, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (1_795_347_600_007, "2026-11-22T11:40:00.007Z"),
            (1_795_347_600_120, "2026-11-22T11:40:00.120Z"),
            (1_795_347_601_999, "2026-11-22T11:40:01.999Z"),
        ] {
            let stamp = Stamp::of(Duration::from_millis(millis));
            assert_eq!(std::str::from_utf8(&stamp.0), Ok(text));
        }
    }

    #[test]
    fn lines_reach_the_file_before_the_log_is_closed() {
        let directory = std::env::temp_dir().join(format!("ravelin-log-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let path = directory.join("access.log");
        let log = AccessLog::open(&LogOutput::File(path.clone())).unwrap();
        for connection in 0..1000 {
            log.write(&Line {
                kind: "request",
                connection,
                ..Line::default()
            });
        }

        log.close(Duration::from_secs(10));

        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(text.lines().count(), 1000);
        let line: serde_json::Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
        assert_eq!(line["connection"], 999);
        assert_eq!(log.lost(), 0);
        std::fs::remove_dir_all(directory).unwrap();
    }
}
