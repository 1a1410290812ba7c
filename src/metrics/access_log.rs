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

pub use self::line::Line;
use crate::{clock, config::LogOutput, refusal, relay, session};

mod line;

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
        let Some(shared) = &self.0 else { return };
        // Each thread has one piece of memory for all its lines; without it (the thread is
        // ending) there is fresh memory.
        let mut text = TEXT.try_with(Cell::take).unwrap_or_default();
        text.clear();
        line.write(clock::since_epoch(), &mut text);
        shared.take(&text);
        if text.capacity() <= TEXT_KEPT {
            let _ended = TEXT.try_with(|kept| kept.set(text));
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
    /// Puts one line into the buffer, or counts it as lost.
    fn take(&self, text: &[u8]) {
        let mut state = self.lock();
        if state.buffer.len().saturating_add(text.len()) > BUFFER_LIMIT {
            drop(state);
            self.lost.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let wake = state.buffer.is_empty();
        state.buffer.extend_from_slice(text);
        drop(state);
        if wake {
            self.wake.notify_all();
        }
    }

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

thread_local! {
    static TEXT: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
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

/// Room for one line that a thread keeps; most lines fit.
const TEXT_KEPT: usize = 4 << 10;

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
