//! What is measured: one row for each kind of work, with its unit and its goal.

use super::job::{Cipher, Generator, Group, Protocol, Work};

/// One line of the results.
#[derive(Clone, Copy, Debug)]
pub(super) struct Row {
    /// Names it on the command line.
    pub(super) id: &'static str,
    /// Names it in tables and charts.
    pub(super) title: &'static str,
    pub(super) unit: Unit,
    pub(super) goal: Option<Goal>,
    pub(super) kind: Kind,
}

/// What a figure counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unit {
    /// CPU time for each, in µs.
    Micros(&'static str),
    /// CPU time for a GiB, in s.
    SecondsPerGib,
    /// Proportional memory for each, in KiB.
    Kib,
    /// Resident memory, in MiB.
    Mib,
}

/// What closes the issue, and where it goes from there.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Goal {
    pub(super) at_least: Bound,
    pub(super) aim: Bound,
    /// Whether the 99th percentile may not be above the best peer's either.
    pub(super) tail: bool,
}

/// A limit on a figure.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Bound {
    /// Of the best peer's in the same run.
    Ratio(f64),
    /// In the row's own unit.
    Value(f64),
}

/// How a row is measured.
#[derive(Clone, Copy, Debug)]
pub(super) enum Kind {
    /// CPU under a load, in rounds.
    Load(Shape),
    /// Memory of connections that do nothing; once, with programs started for it.
    Idle(Shape),
    /// Memory after the start.
    Start,
    /// A stage in memory, in a loop.
    Micro(Micro),
    /// The gateway alone, over growing numbers.
    Growth(Growth),
    /// The gateway alone, with another's generator beside ours.
    Check(Shape, Generator),
}

/// The load of a row.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shape {
    pub(super) work: Work,
    pub(super) protocol: Protocol,
    pub(super) connections: usize,
    pub(super) streams: usize,
    /// The service of the origin to which tunnels lead.
    pub(super) tunnel: Option<Service>,
    pub(super) cipher: Option<Cipher>,
    pub(super) group: Option<Group>,
    /// Whether the certificate is RSA's instead of P-256's.
    pub(super) rsa: bool,
}

/// A plain TCP service of the origin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Service {
    Echo,
    Sink,
    Source,
}

/// A stage that is measured alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Micro {
    PolicyAgain,
    PolicyFirst,
    Pick,
    Route,
    Session,
}

/// What grows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Growth {
    /// Kept connections, and the CPU of a request.
    Connections,
    /// Apps, and the CPU of a request.
    Routes,
    /// Sessions, and the time of a look-up.
    Sessions,
}

impl Row {
    /// Whether peers are measured in it too.
    pub(super) fn has_peers(&self) -> bool {
        matches!(self.kind, Kind::Load(_) | Kind::Idle(_) | Kind::Start)
    }

    /// Whether each unit of work writes a line to an access log, so that the log counts.
    pub(super) fn logs(&self) -> bool {
        matches!(self.kind, Kind::Load(shape) if matches!(shape.work, Work::Requests | Work::New))
    }
}

impl Unit {
    /// As it stands in tables.
    pub(super) fn text(self) -> String {
        match self {
            Self::Micros(what) => format!("µs/{what}"),
            Self::SecondsPerGib => "s/GiB".to_owned(),
            Self::Kib => "KiB each".to_owned(),
            Self::Mib => "MiB".to_owned(),
        }
    }
}

/// The rows whose ids are, or begin with, one of these names; all of them without a name.
pub(super) fn select(names: &[String]) -> Result<Vec<&'static Row>, String> {
    let begins = |row: &&Row, name: &String| super::peer::begins(row.id, name);
    for name in names {
        if !ROWS.iter().any(|row| begins(&row, name)) {
            let known: Vec<&str> = ROWS.iter().map(|row| row.id).collect();
            return Err(format!(
                "there is no work {name}; there are {}",
                known.join(" ")
            ));
        }
    }
    let chosen = |row: &&Row| names.is_empty() || names.iter().any(|name| begins(row, name));
    Ok(ROWS.iter().filter(chosen).collect())
}

const fn ratio(at_least: f64, aim: f64) -> Option<Goal> {
    Some(Goal {
        at_least: Bound::Ratio(at_least),
        aim: Bound::Ratio(aim),
        tail: false,
    })
}

const fn value(at_least: f64, aim: f64) -> Option<Goal> {
    Some(Goal {
        at_least: Bound::Value(at_least),
        aim: Bound::Value(aim),
        tail: false,
    })
}

const MESSAGE: Option<Goal> = Some(Goal {
    at_least: Bound::Ratio(0.75),
    aim: Bound::Ratio(0.65),
    tail: true,
});

pub(super) const REQUESTS: Shape = Shape {
    work: Work::Requests,
    protocol: Protocol::H1,
    connections: 64,
    streams: 1,
    tunnel: None,
    cipher: Some(Cipher::Aes128),
    group: Some(Group::X25519),
    rsa: false,
};

const H2: Shape = Shape {
    protocol: Protocol::H2,
    connections: 8,
    streams: 16,
    ..REQUESTS
};

const HANDSHAKES: Shape = Shape {
    work: Work::Handshakes,
    connections: 16,
    ..REQUESTS
};

const BULK: Shape = Shape {
    work: Work::Download,
    connections: 4,
    ..REQUESTS
};

const DOWN: Shape = Shape {
    work: Work::TunnelDownload,
    connections: 2,
    tunnel: Some(Service::Source),
    ..REQUESTS
};

const UP: Shape = Shape {
    work: Work::TunnelUpload,
    tunnel: Some(Service::Sink),
    ..DOWN
};

const PINGPONG: Shape = Shape {
    work: Work::PingPong,
    connections: 64,
    tunnel: Some(Service::Echo),
    ..DOWN
};

const IDLE: Shape = Shape {
    work: Work::Idle,
    connections: 9000,
    ..REQUESTS
};

const fn row(
    id: &'static str,
    title: &'static str,
    unit: Unit,
    goal: Option<Goal>,
    kind: Kind,
) -> Row {
    Row {
        id,
        title,
        unit,
        goal,
        kind,
    }
}

const REQUEST: Unit = Unit::Micros("request");
const HANDSHAKE: Unit = Unit::Micros("handshake");
const TRIP: Unit = Unit::Micros("round trip");
const GIB: Unit = Unit::SecondsPerGib;

/// Every row, in the order of the tables.
#[rustfmt::skip]
pub(super) static ROWS: &[Row] = &[
    row("h1", "HTTP/1.1 request", REQUEST, ratio(0.90, 0.70), Kind::Load(REQUESTS)),
    row("h2", "HTTP/2 request", REQUEST, ratio(1.00, 0.80), Kind::Load(H2)),
    row("handshake-p256", "handshake, P-256", HANDSHAKE, ratio(0.75, 0.50), Kind::Load(HANDSHAKES)),
    row("handshake-rsa", "handshake, RSA-2048", HANDSHAKE, ratio(0.80, 0.70), Kind::Load(Shape { rsa: true, ..HANDSHAKES })),
    row("handshake-mlkem", "handshake, X25519MLKEM768", HANDSHAKE, None, Kind::Load(Shape { group: Some(Group::X25519mlkem768), ..HANDSHAKES })),
    row("handshake-resumed", "handshake, resumed", HANDSHAKE, ratio(0.65, 0.50), Kind::Load(Shape { work: Work::Resumptions, ..HANDSHAKES })),
    row("new", "connection, one request, close", Unit::Micros("connection"), ratio(0.75, 0.50), Kind::Load(Shape { work: Work::New, ..HANDSHAKES })),
    row("bulk-aes128", "bulk, AES-128-GCM", GIB, ratio(1.00, 0.65), Kind::Load(BULK)),
    row("bulk-aes256", "bulk, AES-256-GCM", GIB, ratio(1.00, 0.65), Kind::Load(Shape { cipher: Some(Cipher::Aes256), ..BULK })),
    row("bulk-chacha", "bulk, ChaCha20-Poly1305", GIB, ratio(1.00, 0.65), Kind::Load(Shape { cipher: Some(Cipher::Chacha20), ..BULK })),
    row("tunnel-h1-down", "tunnel over h1, down", GIB, ratio(0.80, 0.50), Kind::Load(DOWN)),
    row("tunnel-h1-up", "tunnel over h1, up", GIB, ratio(0.80, 0.50), Kind::Load(UP)),
    row("tunnel-h2-down", "tunnel over h2, down", GIB, ratio(1.00, 0.65), Kind::Load(Shape { protocol: Protocol::H2, ..DOWN })),
    row("tunnel-h2-up", "tunnel over h2, up", GIB, ratio(1.00, 0.65), Kind::Load(Shape { protocol: Protocol::H2, ..UP })),
    row("pingpong-64", "64 bytes and back, 64 tunnels", TRIP, MESSAGE, Kind::Load(PINGPONG)),
    row("pingpong-1000", "64 bytes and back, 1,000 tunnels", TRIP, MESSAGE, Kind::Load(Shape { connections: 1000, ..PINGPONG })),
    row("idle-h1", "idle HTTP/1.1 connection", Unit::Kib, ratio(0.80, 0.67), Kind::Idle(IDLE)),
    row("idle-tunnel", "idle tunnel", Unit::Kib, value(16.0, 11.0), Kind::Idle(Shape { tunnel: Some(Service::Echo), ..IDLE })),
    row("idle-h2", "idle HTTP/2 connection", Unit::Kib, None, Kind::Idle(Shape { protocol: Protocol::H2, ..IDLE })),
    row("start", "memory at start", Unit::Mib, value(20.0, 12.0), Kind::Start),
    row("policy-first", "policy decision, first time", Unit::Micros("decision"), None, Kind::Micro(Micro::PolicyFirst)),
    row("policy-again", "policy decision, remembered", Unit::Micros("decision"), None, Kind::Micro(Micro::PolicyAgain)),
    row("session", "session look-up", Unit::Micros("look-up"), None, Kind::Micro(Micro::Session)),
    row("route", "route look-up", Unit::Micros("look-up"), None, Kind::Micro(Micro::Route)),
    row("pick", "pick of a node", Unit::Micros("pick"), None, Kind::Micro(Micro::Pick)),
    row("growth-connections", "a request, by connections", REQUEST, ratio(1.30, 1.30), Kind::Growth(Growth::Connections)),
    row("growth-routes", "a request, by routes", REQUEST, ratio(1.30, 1.30), Kind::Growth(Growth::Routes)),
    row("growth-sessions", "a look-up, by sessions", Unit::Micros("look-up"), ratio(1.30, 1.30), Kind::Growth(Growth::Sessions)),
    row("check-wrk", "HTTP/1.1 request, by wrk", REQUEST, None, Kind::Check(REQUESTS, Generator::Wrk)),
    row("check-h2load", "HTTP/2 request, by h2load", REQUEST, None, Kind::Check(H2, Generator::H2load)),
    row("check-curl", "bulk, by curl", GIB, None, Kind::Check(BULK, Generator::Curl)),
    row("check-tunnel", "tunnel over h1, down, by curl", GIB, None, Kind::Check(DOWN, Generator::Curl)),
];

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(names: &[&str]) -> Result<Vec<&'static str>, String> {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        Ok(select(&names)?.iter().map(|row| row.id).collect())
    }

    #[test]
    fn a_name_or_the_beginning_of_one_chooses_rows() {
        assert_eq!(ids(&["h1"]).unwrap(), ["h1"]);
        assert_eq!(
            ids(&["bulk", "h2"]).unwrap(),
            ["h2", "bulk-aes128", "bulk-aes256", "bulk-chacha"]
        );
        assert_eq!(ids(&[]).unwrap().len(), ROWS.len());
    }

    #[test]
    fn an_unknown_name_is_answered_with_the_known_ones() {
        let problem = ids(&["h3"]).unwrap_err();

        assert!(problem.starts_with("there is no work h3; there are h1 h2 "));
    }

    #[test]
    fn no_id_comes_twice() {
        for (at, row) in ROWS.iter().enumerate() {
            assert!(ROWS.iter().skip(at + 1).all(|other| other.id != row.id));
        }
    }
}
