//! Line: one request or tunnel as the access log tells it, written without an allocation.

use std::{
    borrow::Cow,
    cell::Cell,
    io::Write as _,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use super::{Record, printable};

/// One line of the log. Empty fields are left out.
///
/// Texts may hold anything: what could forge a line is written out when the line is.
#[derive(Debug, Default)]
pub struct Line<'a> {
    /// `request` or `tunnel`.
    pub kind: &'static str,
    /// Number of the connection.
    pub connection: u64,
    /// The listener's name.
    pub listener: &'a str,
    /// The device's address.
    pub device: Option<SocketAddr>,
    /// `HTTP/1.1`, `HTTP/2`.
    pub protocol: &'a str,
    /// Method.
    pub method: &'a str,
    /// Host, as the device wrote it.
    pub host: Cow<'a, str>,
    /// Path, without a query.
    pub path: &'a str,
    /// `User-Agent`, cut at 200 bytes.
    pub agent: Cow<'a, str>,
    /// Status of the answer.
    pub status: Option<u16>,
    /// To the answer's last byte, or the life of a tunnel.
    pub took: Duration,
    /// Bytes from the device.
    pub up: Option<u64>,
    /// Bytes to the device.
    pub down: Option<u64>,
    /// How a tunnel ended.
    pub end: Option<&'a str>,
    /// What stages found out.
    pub record: Option<&'a Record>,
}

impl Line<'_> {
    /// Appends the line as JSON, with the time of day, and its line end.
    pub(super) fn write(&self, since_epoch: Duration, out: &mut Vec<u8>) {
        out.extend_from_slice(b"{\"time\":\"");
        out.extend_from_slice(&stamp(since_epoch));
        out.push(b'"');
        let mut fields = Fields(out);
        fields.text("kind", self.kind);
        fields.number("connection", self.connection);
        fields.text("listener", self.listener);
        fields.address("device", self.device);
        fields.some_text("protocol", self.protocol);
        fields.some_text("method", self.method);
        fields.some_text("host", &self.host);
        fields.some_text("path", self.path);
        fields.some_text("agent", &self.agent);
        if let Some(status) = self.status {
            fields.number("status", status.into());
        }
        fields.milliseconds("ms", self.took);
        for (name, bytes) in [("up", self.up), ("down", self.down)] {
            if let Some(bytes) = bytes {
                fields.number(name, bytes);
            }
        }
        fields.optional("end", self.end);
        if let Some(record) = self.record {
            fields.record(record);
        }
        out.extend_from_slice(b"}\n");
    }
}

/// The fields of a JSON object, after its first.
struct Fields<'a>(&'a mut Vec<u8>);

impl Fields<'_> {
    fn record(&mut self, record: &Record) {
        let cut = record.relayed.as_ref();
        let cut = cut.and_then(|relayed| relayed.refused.get());
        let refused = record.refused.as_ref().or(cut);
        self.optional("user", record.user.as_deref());
        self.optional("session", record.session.as_deref());
        self.optional("app", record.app.as_deref());
        self.optional("target", record.target.as_deref());
        self.address("backend", record.backend);
        if !record.policies.is_empty() {
            self.name("policies");
            let mut before = b'[';
            for policy in &*record.policies {
                self.0.push(before);
                push_text(self.0, policy);
                before = b',';
            }
            self.0.push(b']');
        }
        if let Some(refused) = refused {
            self.text("refusal", refused.id.as_str());
            self.text("stage", refused.stage);
            self.text("reason", &refused.reason);
        }
    }

    fn name(&mut self, name: &'static str) {
        self.0.extend_from_slice(b",\"");
        self.0.extend_from_slice(name.as_bytes());
        self.0.extend_from_slice(b"\":");
    }

    fn text(&mut self, name: &'static str, text: &str) {
        self.name(name);
        push_text(self.0, text);
    }

    /// Left out when it is empty.
    fn some_text(&mut self, name: &'static str, text: &str) {
        if !text.is_empty() {
            self.text(name, text);
        }
    }

    fn optional(&mut self, name: &'static str, text: Option<&str>) {
        if let Some(text) = text {
            self.text(name, text);
        }
    }

    fn number(&mut self, name: &'static str, number: u64) {
        self.name(name);
        push_number(self.0, number);
    }

    fn milliseconds(&mut self, name: &'static str, time: Duration) {
        let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        self.number(name, micros / 1000);
        let digit = |of: u64| b'0' | u8::try_from(micros / of % 10).unwrap_or_default();
        self.0
            .extend_from_slice(&[b'.', digit(100), digit(10), digit(1)]);
    }

    fn address(&mut self, name: &'static str, address: Option<SocketAddr>) {
        let Some(address) = address else { return };
        self.name(name);
        self.0.push(b'"');
        match address.ip() {
            IpAddr::V4(v4) => {
                let [a, b, c, d] = v4.octets();
                push_number(self.0, a.into());
                for part in [b, c, d] {
                    self.0.push(b'.');
                    push_number(self.0, part.into());
                }
                self.0.push(b':');
                push_number(self.0, address.port().into());
            }
            IpAddr::V6(_) => {
                // Writing into memory cannot fail.
                let _written = write!(self.0, "{address}");
            }
        }
        self.0.push(b'"');
    }
}

/// A JSON string in which nothing can end it, or look like another text.
fn push_text(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    // Without a way out of the loop: many bytes are looked at in one step, then.
    let odd = text.bytes().fold(false, |odd, byte| {
        odd | !(0x20..0x7f).contains(&byte) | (byte == b'"') | (byte == b'\\')
    });
    if odd {
        // All that JSON asks to escape besides these two is a control character.
        for byte in printable(text).bytes() {
            if matches!(byte, b'"' | b'\\') {
                out.push(b'\\');
            }
            out.push(byte);
        }
    } else {
        out.extend_from_slice(text.as_bytes());
    }
    out.push(b'"');
}

fn push_number(out: &mut Vec<u8>, mut number: u64) {
    let mut digits = [0; 20];
    let mut start = digits.len();
    for (at, digit) in digits.iter_mut().enumerate().rev() {
        *digit = b'0' | u8::try_from(number % 10).unwrap_or_default();
        number /= 10;
        start = at;
        if number == 0 {
            break;
        }
    }
    out.extend_from_slice(digits.get(start..).unwrap_or_default());
}

/// The time of day to the millisecond (RFC 3339).
fn stamp(since_epoch: Duration) -> [u8; STAMP] {
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
    text
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

/// `2026-11-22T11:40:00.123Z`.
const STAMP: usize = 24;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn read(line: &Line<'_>) -> Value {
        let mut text = Vec::new();
        line.write(Duration::from_millis(1_795_347_600_007), &mut text);
        assert_eq!(text.pop(), Some(b'\n'));
        assert!(!text.contains(&b'\n'));
        serde_json::from_slice(&text).unwrap()
    }

    #[test]
    fn a_line_tells_everything_that_is_known() {
        let mut record = Record {
            user: Some("alice".into()),
            session: Some("S-1".into()),
            app: Some("intranet".into()),
            target: Some("node:80".into()),
            backend: Some("[fd00::7]:80".parse().unwrap()),
            policies: ["one".into(), "two".into()].into(),
            ..Record::default()
        };
        let id = record.refuse("upstream", "the \"node\" is away");
        let line = Line {
            kind: "request",
            connection: 7,
            listener: "public",
            device: "192.0.2.10:50000".parse().ok(),
            protocol: "HTTP/1.1",
            method: "GET",
            host: "intranet.test".into(),
            path: "/a\\b",
            agent: "Bücher/1".into(),
            status: Some(502),
            took: Duration::from_micros(12_034),
            up: Some(0),
            down: Some(u64::MAX),
            end: Some("closed"),
            record: Some(&record),
        };
        assert_eq!(
            read(&line),
            json!({
                "time": "2026-11-22T11:40:00.007Z", "kind": "request", "connection": 7,
                "listener": "public", "device": "192.0.2.10:50000", "protocol": "HTTP/1.1",
                "method": "GET", "host": "intranet.test", "path": "/a\\b", "agent": "Bücher/1",
                "status": 502, "ms": 12.034, "up": 0, "down": u64::MAX, "end": "closed",
                "user": "alice", "session": "S-1", "app": "intranet", "target": "node:80",
                "backend": "[fd00::7]:80", "policies": ["one", "two"], "refusal": id.as_str(),
                "stage": "upstream", "reason": "the \"node\" is away",
            })
        );
    }

    #[test]
    fn what_is_not_known_is_left_out() {
        assert_eq!(
            read(&Line::default()),
            json!({
                "time": "2026-11-22T11:40:00.007Z", "kind": "", "connection": 0, "listener": "",
                "ms": 0.0,
            })
        );
    }

    #[test]
    fn a_stamp_is_rfc_3339_with_three_digits() {
        for (millis, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (1_795_347_600_007, "2026-11-22T11:40:00.007Z"),
            (1_795_347_600_120, "2026-11-22T11:40:00.120Z"),
            (1_795_347_601_999, "2026-11-22T11:40:01.999Z"),
        ] {
            let stamp = stamp(Duration::from_millis(millis));
            assert_eq!(std::str::from_utf8(&stamp), Ok(text));
        }
    }

    proptest! {
        #[test]
        fn a_text_comes_back_as_it_may_be_printed(text: String) {
            let line = Line { path: &text, ..Line::default() };
            let read = read(&line);
            let path = read["path"].as_str().unwrap_or_default();
            prop_assert_eq!(path, &*printable(&text));
        }

        #[test]
        fn a_number_comes_back(number: u64) {
            prop_assert_eq!(&read(&Line { connection: number, ..Line::default() })["connection"], number);
        }
    }
}
