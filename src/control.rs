//! The control socket: a UNIX socket, mode 0600, for `ravelin` commands of the same user or root.
//!
//! One line of JSON asks, one line of JSON answers, then the connection ends.

use std::{
    fs, io,
    os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{UnixListener, UnixStream},
    time::{sleep, timeout},
};
use tracing::{debug, warn};

/// What can be asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Command {
    /// End sessions, and all that runs under them.
    Kill {
        /// Which.
        what: Kill,
    },
    /// Pools and their nodes.
    Pools,
    /// Read the configuration again.
    Reload,
    /// Sessions in force.
    Sessions,
    /// Version, uptime, connections.
    Status,
}

/// Which sessions to end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kill {
    /// All.
    All,
    /// One, by its public id.
    Session(String),
    /// Those of a user.
    User(String),
}

/// The answer to a command.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Answer {
    /// It went wrong, for this reason.
    Error(String),
    /// How many sessions were ended.
    Killed(usize),
    /// Pools.
    Pools(Vec<Node>),
    /// The new configuration is in force.
    Reloaded,
    /// Sessions.
    Sessions(Vec<Session>),
    /// Status.
    Status(Status),
}

/// One node as `ravelin pools` shows it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Node {
    /// Its pool.
    pub pool: String,
    /// Its address as configured.
    pub node: String,
    /// `up`, `down` or `unknown`.
    pub state: String,
    /// Requests in hand.
    pub requests: usize,
    /// Why it is down.
    pub reason: Option<String>,
}

/// One session as `ravelin sessions` shows it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Session {
    /// Public id.
    pub id: String,
    /// The person.
    pub user: String,
    /// Who vouched.
    pub directory: String,
    /// `browser`, `device` or `basic`.
    pub class: String,
    /// Seconds since login.
    pub age: u64,
    /// Seconds since the last request.
    pub idle: u64,
    /// Open tunnels.
    pub tunnels: usize,
}

/// The gateway at a glance.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Status {
    /// Version of the program.
    pub version: String,
    /// Seconds since the start.
    pub uptime: u64,
    /// Process id.
    pub pid: u32,
    /// The admin address.
    pub admin: Option<String>,
    /// Where it listens.
    pub listeners: Vec<String>,
    /// Sessions in force.
    pub sessions: usize,
    /// Open connections.
    pub connections: u64,
    /// Open tunnels.
    pub tunnels: i64,
    /// How often the configuration was loaded.
    pub generation: u64,
    /// It ends after the work in hand.
    pub draining: bool,
}

/// Why a command got no answer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// What came back is not an answer.
    #[error("the answer on {path} is not understood", path = path.display())]
    Answer {
        /// The socket.
        path: PathBuf,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// Nobody listens there, or it may not be opened.
    #[error("no gateway answers on {path}", path = path.display())]
    Connect {
        /// The socket.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
}

/// Carries out commands.
pub(crate) trait Operator: Send + Sync + 'static {
    /// Carries out one command.
    fn carry_out(&self, command: Command) -> impl Future<Output = Answer> + Send;
}

/// The socket, removed when dropped.
#[derive(Debug)]
pub(crate) struct Socket {
    listener: UnixListener,
    path: PathBuf,
    inode: u64,
    /// Ours: who made the file owns it.
    uid: u32,
}

impl Socket {
    /// Binds it. A socket file that nobody answers on any more is replaced; nothing else is.
    ///
    /// # Errors
    ///
    /// When something else is there, a gateway answers there, or the directory is not ours.
    pub(crate) fn bind(path: &Path) -> io::Result<Self> {
        if let Ok(there) = fs::symlink_metadata(path) {
            if !there.file_type().is_socket() {
                return Err(io::Error::other("there is a file which is not a socket"));
            }
            if std::os::unix::net::UnixStream::connect(path).is_ok() {
                return Err(io::Error::other("another gateway answers there"));
            }
            fs::remove_file(path)?;
        }
        let listener = UnixListener::bind(path)?;
        fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
        let file = fs::symlink_metadata(path)?;
        Ok(Self {
            listener,
            path: path.to_owned(),
            inode: file.ino(),
            uid: file.uid(),
        })
    }

    /// Answers until the gateway ends.
    pub(crate) async fn serve(self, operator: Arc<impl Operator>) {
        loop {
            match self.listener.accept().await {
                Err(error) => {
                    warn!(%error, "the control socket cannot accept");
                    sleep(ACCEPT_PAUSE).await;
                }
                // One command at a time: operators are few, and a reload must not overtake another.
                Ok((stream, _)) => {
                    let answered = timeout(COMMAND_LIMIT, one(stream, self.uid, &*operator)).await;
                    if let Ok(Err(error)) = answered {
                        debug!(%error, "a connection to the control socket failed");
                    }
                }
            }
        }
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        // Another gateway may have taken the path over.
        if fs::symlink_metadata(&self.path).is_ok_and(|there| there.ino() == self.inode) {
            drop(fs::remove_file(&self.path));
        }
    }
}

async fn one(stream: UnixStream, own: u32, operator: &impl Operator) -> io::Result<()> {
    let peer = stream.peer_cred()?.uid();
    let (read, mut write) = stream.into_split();
    let answer = if peer != own && peer != 0 {
        warn!(uid = peer, "refused on the control socket");
        Answer::Error("only the gateway's own user or root may ask".into())
    } else {
        let mut line = String::new();
        BufReader::new(read.take(MAX_COMMAND))
            .read_line(&mut line)
            .await?;
        match serde_json::from_str(&line) {
            Ok(command) => operator.carry_out(command).await,
            Err(error) => Answer::Error(format!("not a command: {error}")),
        }
    };
    let mut text = serde_json::to_vec(&answer)?;
    text.push(b'\n');
    write.write_all(&text).await?;
    write.shutdown().await
}

/// Asks a running gateway.
///
/// # Errors
///
/// When no gateway answers there.
pub fn ask(path: &Path, command: &Command) -> Result<Answer, Error> {
    use std::io::{Read, Write};

    let failed = |source| Error::Connect {
        path: path.to_owned(),
        source,
    };
    let mut stream = std::os::unix::net::UnixStream::connect(path).map_err(failed)?;
    stream
        .set_read_timeout(Some(COMMAND_LIMIT))
        .map_err(failed)?;
    let mut text = serde_json::to_string(command).map_err(|source| Error::Answer {
        path: path.to_owned(),
        source,
    })?;
    text.push('\n');
    stream.write_all(text.as_bytes()).map_err(failed)?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).map_err(failed)?;
    serde_json::from_str(&answer).map_err(|source| Error::Answer {
        path: path.to_owned(),
        source,
    })
}

const MAX_COMMAND: u64 = 64 << 10;
const COMMAND_LIMIT: Duration = Duration::from_secs(60);
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
