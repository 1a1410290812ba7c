//! What a load generator is asked to do and what came of it, as the JSON that passes between
//! `ravelin bench` and its helper processes.

use std::{net::SocketAddr, path::PathBuf};

use serde::{Deserialize, Serialize};

/// One run of load against one gateway.
///
/// A job first opens its connections and prints [`Ready`]. After a pause of [`PAUSE_MS`], in which
/// the caller reads the gateway's CPU time, the load begins. At its end the job prints an
/// [`Outcome`] while its connections are still open, so that neither opening nor closing them is
/// counted. It ends by itself ten seconds after `seconds`, whatever the gateway does.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Job {
    pub(crate) work: Work,
    pub(crate) target: Target,
    /// Who makes the load.
    #[serde(default)]
    pub(crate) generator: Generator,
    /// Nothing begins later than this after the start. What has begun is finished and counted, so
    /// that units are all that the gateway worked for.
    pub(crate) seconds: f64,
    /// Ends the run earlier, after exactly so many units; downloads end with the body that
    /// reaches it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) units: Option<u64>,
    /// Connections at once.
    pub(crate) connections: usize,
    /// Requests or tunnels at once on each HTTP/2 connection.
    #[serde(default = "one")]
    pub(crate) streams: usize,
    /// Loopback addresses that connections come from, in turn: 127.0.0.1 and the next ones. More
    /// than one where a gateway limits the connections of a source, or ports would run out.
    #[serde(default = "one")]
    pub(crate) sources: usize,
}

/// What is done, and the unit that is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Work {
    /// Requests one after another on kept connections: a request with its whole answer.
    Requests,
    /// The same, for large answers: a byte of a body.
    Download,
    /// Connections that do nothing but a full handshake: a connection, closed by both sides.
    Handshakes,
    /// The same, each resumed with a ticket of the one before; a full one is an error.
    Resumptions,
    /// Connections of a full handshake, one request and its answer: a connection, closed by both.
    New,
    /// Bytes from the origin's source: a byte.
    TunnelDownload,
    /// Bytes to the origin's sink, which confirms them: a byte.
    TunnelUpload,
    /// 64 bytes to the origin's echo and back, one after another in each tunnel: a round trip.
    PingPong,
    /// Connections that have sent one request, or opened their tunnel, and then nothing: a
    /// connection that is still there when standard input closes.
    Idle,
}

/// Who makes the load.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Generator {
    /// This program.
    #[default]
    Ravelin,
    /// `requests` and `new` over HTTP/1.1. It has no way to say where a name is: the SNI must
    /// resolve to the target's address, as `localhost` does. It verifies nothing.
    Wrk,
    /// `requests` over HTTP/2.
    H2load,
    /// `download`, and `tunnel-download` of `path` from the HTTP origin that `connect` names: each
    /// connection fetches it once, `seconds` is only the limit.
    Curl,
    /// `tunnel-download` and `tunnel-upload` through a relay without TLS, to an iperf3 server.
    Iperf3,
}

/// The gateway, and how to speak to it.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Target {
    /// Where it listens.
    pub(crate) address: SocketAddr,
    /// The `Host` or `:authority` of requests.
    #[serde(default)]
    pub(crate) host: String,
    /// What requests ask for.
    #[serde(default = "small")]
    pub(crate) path: String,
    #[serde(default)]
    pub(crate) protocol: Protocol,
    /// What each request carries beside `Host`: a cookie, say.
    #[serde(default)]
    pub(crate) headers: Vec<(String, String)>,
    /// How TLS is spoken; plain TCP without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) tls: Option<Tls>,
    /// How a tunnel is asked for. Without it a tunnel is the connection itself, as through a relay
    /// that knows no `CONNECT`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) connect: Option<Connect>,
}

/// The HTTP that is spoken with the gateway.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Protocol {
    /// HTTP/1.1.
    #[default]
    H1,
    /// HTTP/2.
    H2,
}

/// TLS towards the gateway, which must be trusted and, where said, choose what is asked.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Tls {
    /// The name that is asked for and verified.
    pub(crate) sni: String,
    /// The authorities that are trusted, as PEM.
    pub(crate) trust: PathBuf,
    /// The only cipher to offer, in TLS 1.3.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) cipher: Option<Cipher>,
    /// The only key exchange to offer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) group: Option<Group>,
}

/// A cipher of TLS 1.3.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Cipher {
    /// AES-128-GCM.
    Aes128,
    /// AES-256-GCM.
    Aes256,
    /// ChaCha20-Poly1305.
    Chacha20,
}

/// A key exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Group {
    /// X25519.
    X25519,
    /// X25519 and ML-KEM-768, against quantum computers.
    X25519mlkem768,
    /// The NIST curve P-256.
    P256,
}

/// `CONNECT`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Connect {
    /// Host and port of the tunnel's end.
    pub(crate) authority: String,
    /// The value of `Proxy-Authorization`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) authorization: Option<String>,
}

/// The connections are open.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Ready {
    /// How many: none for works that open them as their load.
    pub(crate) ready: usize,
}

/// What came of a job. One with errors measured nothing.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Outcome {
    pub(crate) generator: Generator,
    /// What was done, in the units of [`Work`].
    pub(crate) units: u64,
    /// Answers other than 2xx, short bodies, lost connections: whoever meets one stops.
    pub(crate) errors: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) first_error: Option<String>,
    /// On the wall, from the start of the load to the end of its last unit.
    pub(crate) seconds: f64,
    /// Bytes of bodies, or through tunnels in both directions.
    pub(crate) bytes: u64,
    /// The cipher that was negotiated, when the generator can tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) cipher: Option<String>,
    /// The key exchange that was negotiated, when the generator can tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) group: Option<String>,
    /// Resumed handshakes, when the generator can tell.
    pub(crate) resumed: u64,
    /// Half of the units took less, in microseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) p50_us: Option<f64>,
    /// One unit in a hundred took more, in microseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) p99_us: Option<f64>,
}

/// Where the origin listens, on loopback.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Addresses {
    /// HTTP/1.1: `/1k`, and `/bytes/N` for N bytes.
    pub(crate) http: SocketAddr,
    /// Reads a number (eight bytes, big-endian) and so many bytes, answers the number; again.
    pub(crate) sink: SocketAddr,
    /// Reads a number (eight bytes, big-endian) and sends so many bytes; again.
    pub(crate) source: SocketAddr,
    /// Sends back what it reads.
    pub(crate) echo: SocketAddr,
}

/// How long a job waits between [`Ready`] and its load.
pub(crate) const PAUSE_MS: u64 = 200;

fn one() -> usize {
    1
}

fn small() -> String {
    "/1k".to_owned()
}
