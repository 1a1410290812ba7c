//! The PROXY protocol, versions 1 and 2: who the device is, told by a balancer in front.
//!
//! Bytes only. Strict: a header that is not exactly right closes the connection, since a wrong
//! guess would give one device the address of another.
#![warn(clippy::arithmetic_side_effects)]

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    str,
};

/// What the first bytes of a connection are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decoded {
    /// A whole header.
    Header {
        /// What it says.
        header: Header,
        /// Bytes that it takes.
        length: usize,
    },
    /// The beginning of a header; more bytes are needed.
    Incomplete,
}

/// What a header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Header {
    /// The balancer speaks for itself (a health probe, LOCAL), or does not know who connected
    /// (UNKNOWN, UNSPEC): the peer itself counts as the device.
    Peer,
    /// The device at `source` connected to `destination`.
    Proxied {
        /// The device.
        source: SocketAddr,
        /// Where it connected to.
        destination: SocketAddr,
    },
}

/// Why bytes are no header that we take.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// An address is missing, malformed or of the other family.
    #[error("an address in the PROXY header is not one")]
    Address,
    /// Neither LOCAL nor PROXY.
    #[error("the PROXY header has unknown command {0}")]
    Command(u8),
    /// Neither IPv4 nor IPv6 over TCP. A UNIX socket or UDP has no device address that could be
    /// judged; taking the balancer's in its place would trust every such device as much as it.
    #[error("the PROXY header is for family and protocol {0:#04x}, not TCP over IPv4 or IPv6")]
    Family(u8),
    /// A line of version 1 that is not built as it should be.
    #[error("the PROXY header of version 1 is malformed")]
    Line,
    /// Longer than any header we take.
    #[error("the PROXY header is longer than {0} bytes")]
    Long(usize),
    /// Not a PROXY header at all.
    #[error("the PROXY header is missing")]
    Missing,
    /// A port is missing or malformed.
    #[error("a port in the PROXY header is not one")]
    Port,
    /// Too short for the addresses that it announces.
    #[error("the PROXY header of {0} bytes is too short for its addresses")]
    Short(usize),
    /// An extension runs past the end of the header.
    #[error("an extension (TLV) of the PROXY header is broken")]
    Tlv,
    /// A version that does not exist.
    #[error("the PROXY header has unknown version {0}")]
    Version(u8),
}

/// Whether `bytes` begin like a PROXY header of any version; for messages.
pub fn resembles(bytes: &[u8]) -> bool {
    bytes.starts_with(V1) || bytes.starts_with(SIGNATURE)
}

/// Reads the header at the beginning of a connection.
///
/// Call it again with more bytes when it is incomplete: it never needs more than
/// [`V2_LONGEST`].
///
/// # Errors
///
/// As soon as the bytes cannot become a header.
pub fn decode(bytes: &[u8]) -> Result<Decoded, Error> {
    if begins(bytes, SIGNATURE) {
        decode_v2(bytes)
    } else if begins(bytes, V1) {
        decode_v1(bytes)
    } else {
        Err(Error::Missing)
    }
}

/// Whether `bytes` begin with `expected`, as far as they go.
fn begins(bytes: &[u8], expected: &[u8]) -> bool {
    bytes.iter().zip(expected).all(|(a, b)| a == b)
}

fn decode_v1(bytes: &[u8]) -> Result<Decoded, Error> {
    let window = bytes.get(..V1_LONGEST).unwrap_or(bytes);
    let Some(end) = window.windows(2).position(|pair| pair == b"\r\n") else {
        return if window.len() == V1_LONGEST {
            Err(Error::Long(V1_LONGEST))
        } else {
            Ok(Decoded::Incomplete)
        };
    };
    let line = window
        .get(V1.len()..end)
        .and_then(|line| str::from_utf8(line).ok())
        .ok_or(Error::Line)?;
    Ok(Decoded::Header {
        header: parse_line(line)?,
        length: end.saturating_add(2),
    })
}

/// What stands between `PROXY ` and the end of the line.
fn parse_line(line: &str) -> Result<Header, Error> {
    let mut words = line.split(' ');
    let family = words.next().unwrap_or_default();
    if family == "UNKNOWN" {
        // Whatever follows is to be ignored.
        return Ok(Header::Peer);
    }
    let mut address = || -> Result<IpAddr, Error> {
        let word = words.next().ok_or(Error::Line)?;
        match family {
            "TCP4" => word.parse().map(IpAddr::V4),
            "TCP6" => word.parse().map(IpAddr::V6),
            _ => return Err(Error::Line),
        }
        .ok()
        .ok_or(Error::Address)
    };
    let (source, destination) = (address()?, address()?);
    let mut port = || parse_port(words.next().ok_or(Error::Line)?);
    let (source_port, destination_port) = (port()?, port()?);
    if words.next().is_some() {
        return Err(Error::Line);
    }
    Ok(proxied(
        (source, source_port),
        (destination, destination_port),
    ))
}

/// Digits without sign or leading zeros.
fn parse_port(word: &str) -> Result<u16, Error> {
    let plain = word.bytes().all(|byte| byte.is_ascii_digit());
    let leading_zero = word.len() > 1 && word.starts_with('0');
    if !plain || leading_zero {
        return Err(Error::Port);
    }
    word.parse().ok().ok_or(Error::Port)
}

fn decode_v2(bytes: &[u8]) -> Result<Decoded, Error> {
    let Some(rest) = bytes.get(SIGNATURE.len()..) else {
        return Ok(Decoded::Incomplete);
    };
    // Each byte is judged as soon as it is there: a sender of rubbish is not waited for.
    if let Some(&first) = rest.first() {
        if first >> 4 != 2 {
            return Err(Error::Version(first >> 4));
        }
        if first & 0x0f > 1 {
            return Err(Error::Command(first & 0x0f));
        }
    }
    let Some(&[first, family, high, low]) = rest.first_chunk() else {
        return Ok(Decoded::Incomplete);
    };
    let body_length = usize::from(u16::from_be_bytes([high, low]));
    let length = V2_HEAD.saturating_add(body_length);
    if length > V2_LONGEST {
        return Err(Error::Long(V2_LONGEST));
    }
    let Some(body) = bytes.get(V2_HEAD..length) else {
        return Ok(Decoded::Incomplete);
    };
    let local = first & 0x0f == 0;
    let header = if local || family == 0 {
        Header::Peer
    } else {
        parse_body(family, body)?
    };
    Ok(Decoded::Header { header, length })
}

fn parse_body(family: u8, body: &[u8]) -> Result<Header, Error> {
    let short = Error::Short(body.len());
    let (header, extensions) = match family {
        0x11 => {
            let ([a, b, c, d], rest) = body.split_first_chunk().ok_or(short)?;
            let ([e, f, g, h], rest) = rest.split_first_chunk().ok_or(short)?;
            let (ports, rest) = rest.split_first_chunk().ok_or(short)?;
            let source = Ipv4Addr::new(*a, *b, *c, *d).into();
            let destination = Ipv4Addr::new(*e, *f, *g, *h).into();
            (with_ports(source, destination, ports), rest)
        }
        0x21 => {
            let (source, rest) = body.split_first_chunk::<16>().ok_or(short)?;
            let (destination, rest) = rest.split_first_chunk::<16>().ok_or(short)?;
            let (ports, rest) = rest.split_first_chunk().ok_or(short)?;
            let source = Ipv6Addr::from(*source).into();
            let destination = Ipv6Addr::from(*destination).into();
            (with_ports(source, destination, ports), rest)
        }
        _ => return Err(Error::Family(family)),
    };
    skip_extensions(extensions)?;
    Ok(header)
}

fn with_ports(source: IpAddr, destination: IpAddr, ports: &[u8; 4]) -> Header {
    let [a, b, c, d] = *ports;
    proxied(
        (source, u16::from_be_bytes([a, b])),
        (destination, u16::from_be_bytes([c, d])),
    )
}

/// IPv4 inside IPv6 counts as IPv4, as everywhere.
fn proxied(source: (IpAddr, u16), destination: (IpAddr, u16)) -> Header {
    Header::Proxied {
        source: (source.0.to_canonical(), source.1).into(),
        destination: (destination.0.to_canonical(), destination.1).into(),
    }
}

/// Extensions (TLVs) say nothing that we would believe; they must be whole, though.
fn skip_extensions(mut bytes: &[u8]) -> Result<(), Error> {
    while !bytes.is_empty() {
        let ([_kind, high, low], rest) = bytes.split_first_chunk().ok_or(Error::Tlv)?;
        let length = usize::from(u16::from_be_bytes([*high, *low]));
        bytes = rest.get(length..).ok_or(Error::Tlv)?;
    }
    Ok(())
}

const V1: &[u8] = b"PROXY ";
/// The longest line of version 1, with its end.
const V1_LONGEST: usize = 107;
const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
/// Signature, version and command, family and protocol, length.
const V2_HEAD: usize = 16;
/// The longest header that we take: what the smallest segment carries in one piece.
pub const V2_LONGEST: usize = 536;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn header(bytes: &[u8]) -> Result<Header, Error> {
        match decode(bytes)? {
            Decoded::Header { header, length } => {
                assert_eq!(length, bytes.len());
                Ok(header)
            }
            Decoded::Incomplete => panic!("incomplete"),
        }
    }

    fn proxied(source: &str, destination: &str) -> Header {
        Header::Proxied {
            source: source.parse().unwrap(),
            destination: destination.parse().unwrap(),
        }
    }

    fn v2(command: u8, family: u8, body: &[u8]) -> Vec<u8> {
        let mut bytes = SIGNATURE.to_vec();
        bytes.extend([0x20 | command, family]);
        bytes.extend(u16::try_from(body.len()).unwrap().to_be_bytes());
        bytes.extend(body);
        bytes
    }

    const IPV4: &[u8] = &[198, 51, 100, 7, 203, 0, 113, 1, 0xdc, 0x04, 0x01, 0xbb];

    #[test]
    fn version_1_tells_both_ends() {
        assert_eq!(
            header(b"PROXY TCP4 198.51.100.7 203.0.113.1 56324 443\r\n"),
            Ok(proxied("198.51.100.7:56324", "203.0.113.1:443"))
        );
        assert_eq!(
            header(b"PROXY TCP6 2001:db8::7 2001:db8::1 56324 443\r\n"),
            Ok(proxied("[2001:db8::7]:56324", "[2001:db8::1]:443"))
        );
        assert_eq!(
            header(b"PROXY TCP6 ::ffff:198.51.100.7 ::ffff:203.0.113.1 1 443\r\n"),
            Ok(proxied("198.51.100.7:1", "203.0.113.1:443"))
        );
    }

    #[test]
    fn version_2_tells_both_ends() {
        let expected = proxied("198.51.100.7:56324", "203.0.113.1:443");
        assert_eq!(header(&v2(1, 0x11, IPV4)), Ok(expected));

        let with_tlv = [IPV4, &[0x04, 0, 2, 9, 9, 0x20, 0, 0]].concat();
        assert_eq!(header(&v2(1, 0x11, &with_tlv)), Ok(expected));

        let mut ipv6 = vec![0; 36];
        (ipv6[15], ipv6[31], ipv6[33], ipv6[35]) = (7, 1, 5, 6);
        assert_eq!(
            header(&v2(1, 0x21, &ipv6)),
            Ok(proxied("[::7]:5", "[::1]:6"))
        );
    }

    #[test]
    fn local_and_unknown_are_the_peer_itself() {
        assert_eq!(header(b"PROXY UNKNOWN\r\n"), Ok(Header::Peer));
        assert_eq!(header(b"PROXY UNKNOWN what ever 1 2\r\n"), Ok(Header::Peer));
        assert_eq!(header(&v2(0, 0, &[])), Ok(Header::Peer));
        assert_eq!(header(&v2(0, 0x11, b"anything")), Ok(Header::Peer));
        assert_eq!(header(&v2(1, 0, b"anything")), Ok(Header::Peer));
    }

    #[test]
    fn bytes_after_the_header_are_not_part_of_it() {
        let mut bytes = v2(1, 0x11, IPV4);
        let length = bytes.len();
        bytes.extend(b"\x16\x03\x01");
        let Ok(Decoded::Header { length: found, .. }) = decode(&bytes) else {
            panic!("no header");
        };
        assert_eq!(found, length);
    }

    #[test]
    fn lines_that_are_not_exactly_right_are_refused() {
        for (line, error) in [
            (&b"GET / HTTP/1.1\r\n\r\n"[..], Error::Missing),
            (b"\x16\x03\x01", Error::Missing),
            (b"proxy TCP4", Error::Missing),
            (b"PROXY\tTCP4", Error::Missing),
            (b"PROXY \r\n", Error::Line),
            (b"PROXY TCP5 1.1.1.1 2.2.2.2 1 2\r\n", Error::Line),
            (b"PROXY TCP4\r\n", Error::Line),
            (b"PROXY TCP4 1.1.1.1 2.2.2.2 1\r\n", Error::Line),
            (b"PROXY TCP4 1.1.1.1 2.2.2.2 1 2 3\r\n", Error::Line),
            (b"PROXY TCP4 1.1.1.1 2.2.2.2 1 2 \r\n", Error::Line),
            (b"PROXY TCP4  1.1.1.1 2.2.2.2 1 2\r\n", Error::Address),
            (b"PROXY TCP4 ::1 ::1 1 2\r\n", Error::Address),
            (b"PROXY TCP6 1.1.1.1 2.2.2.2 1 2\r\n", Error::Address),
            (b"PROXY TCP4 01.1.1.1 2.2.2.2 1 2\r\n", Error::Address),
            (b"PROXY TCP4 1.1.1 2.2.2.2 1 2\r\n", Error::Address),
            (b"PROXY TCP4 1.1.1.1 2.2.2.2 +1 2\r\n", Error::Port),
            (b"PROXY TCP4 1.1.1.1 2.2.2.2 01 2\r\n", Error::Port),
            (b"PROXY TCP4 1.1.1.1 2.2.2.2 65536 2\r\n", Error::Port),
            (b"PROXY TCP4 1.1.1.1 2.2.2.2 1 \r\n", Error::Port),
            (b"PROXY TCP4 \xff.1.1.1 2.2.2.2 1 2\r\n", Error::Line),
        ] {
            assert_eq!(decode(line), Err(error), "{line:?}");
        }
    }

    #[test]
    fn a_line_longer_than_107_bytes_is_refused() {
        let mut line = b"PROXY UNKNOWN ".to_vec();
        line.resize(105, b'x');
        line.extend(b"\r\n");
        assert_eq!(header(&line), Ok(Header::Peer));

        line.insert(20, b'x');
        assert_eq!(decode(&line), Err(Error::Long(107)));
    }

    #[test]
    fn binary_headers_that_are_not_exactly_right_are_refused() {
        let with = |at: usize, byte: u8| {
            let mut bytes = v2(1, 0x11, IPV4);
            bytes[at] = byte;
            bytes
        };
        let tlv = |tail: &[u8]| v2(1, 0x11, &[IPV4, tail].concat());
        for (bytes, error) in [
            (with(12, 0x11), Error::Version(1)),
            (with(12, 0x31), Error::Version(3)),
            (with(12, 0x22), Error::Command(2)),
            (with(13, 0x12), Error::Family(0x12)),
            (with(13, 0x31), Error::Family(0x31)),
            (with(13, 0x41), Error::Family(0x41)),
            (v2(1, 0x11, &IPV4[..11]), Error::Short(11)),
            (v2(1, 0x21, IPV4), Error::Short(12)),
            (v2(1, 0x11, &[]), Error::Short(0)),
            (tlv(&[4]), Error::Tlv),
            (tlv(&[4, 0]), Error::Tlv),
            (tlv(&[4, 0, 1]), Error::Tlv),
            (tlv(&[4, 0xff, 0xff, 1]), Error::Tlv),
            (with(14, 0x02), Error::Long(536)),
            (with(14, 0xff), Error::Long(536)),
        ] {
            assert_eq!(decode(&bytes), Err(error), "{bytes:?}");
        }
    }

    #[test]
    fn the_longest_header_is_taken() {
        let body = vec![0; V2_LONGEST - V2_HEAD];
        assert_eq!(header(&v2(0, 0, &body)), Ok(Header::Peer));
    }

    #[test]
    fn every_beginning_of_a_header_is_incomplete() {
        let line = b"PROXY TCP4 198.51.100.7 203.0.113.1 56324 443\r\n".to_vec();
        for bytes in [line, v2(1, 0x11, IPV4), v2(0, 0, &[])] {
            for end in 0..bytes.len() {
                assert_eq!(decode(&bytes[..end]), Ok(Decoded::Incomplete), "{end}");
            }
        }
    }

    proptest! {
        #[test]
        fn no_input_panics(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
            let _decoded = decode(&bytes);
        }

        #[test]
        fn no_input_after_a_signature_panics(
            bytes in prop::collection::vec(any::<u8>(), 0..600),
            second in any::<bool>(),
        ) {
            let start = if second { SIGNATURE } else { V1 };
            let bytes = [start, &bytes].concat();
            let first = decode(&bytes);
            if let Ok(Decoded::Header { length, .. }) = first {
                prop_assert!(length <= bytes.len());
                prop_assert_eq!(decode(&bytes[..length]), first);
            }
            prop_assert!(first != Ok(Decoded::Incomplete) || bytes.len() < V2_LONGEST);
        }

        #[test]
        fn every_address_comes_through(source: [u8; 16], destination: [u8; 16], ports: (u16, u16)) {
            let (source, destination) = (Ipv6Addr::from(source), Ipv6Addr::from(destination));
            let expected = Header::Proxied {
                source: (source.to_canonical(), ports.0).into(),
                destination: (destination.to_canonical(), ports.1).into(),
            };
            let line = format!("PROXY TCP6 {source} {destination} {} {}\r\n", ports.0, ports.1);
            prop_assert_eq!(header(line.as_bytes()), Ok(expected));
            let body = [
                &source.octets()[..],
                &destination.octets(),
                &ports.0.to_be_bytes(),
                &ports.1.to_be_bytes(),
            ]
            .concat();
            prop_assert_eq!(header(&v2(1, 0x21, &body)), Ok(expected));
        }
    }
}
