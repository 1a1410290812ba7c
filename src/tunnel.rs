//! Opens a micro-VPN tunnel for a permit.

use std::{net::SocketAddr, sync::Arc};

use http::{HeaderValue, StatusCode};
use tokio_util::sync::CancellationToken;

use self::connect::Tunnel;
use crate::{
    clock, config,
    dial::{self, Dialer, resolve},
    metrics::access_log::Relayed,
    permit::{Permit, What},
    refusal, relay,
    web::Answer,
};

mod connect;

/// Opens tunnels and knows their limits.
#[derive(Debug)]
pub struct Tunnels {
    config: config::Tunnel,
    dialer: Arc<Dialer>,
}

impl Tunnels {
    /// With the limits of a configuration.
    pub fn new(config: config::Tunnel, dialer: Arc<Dialer>) -> Self {
        Self { config, dialer }
    }

    /// Whether a port may be asked for at all.
    pub fn is_port_open(&self, port: u16) -> bool {
        self.config.ports.is_empty() || self.config.ports.contains(&port)
    }

    /// Connects what the permit allows, and answers with a takeover that relays until the end.
    ///
    /// `stop` ends it: its session ended, or a reload denies it. `held` is what the tunnel counts
    /// against (the session's usage), given back when it is over. `relayed` is told of its bytes as they move and of its
    /// end, unless it never began.
    ///
    /// # Errors
    ///
    /// When nothing could be connected.
    pub async fn open(
        &self,
        permit: &Permit,
        stop: CancellationToken,
        held: impl Send + 'static,
        relayed: Arc<Relayed>,
    ) -> Result<Opened, dial::Error> {
        let (backend, address) = self.dialer.tunnel(permit).await?;
        let tunnel = Tunnel {
            backend,
            address,
            limits: self.limits(permit, address.port()),
            stop,
            held,
            relayed,
        };
        Ok(Opened {
            answer: tunnel.answer(),
            address,
        })
    }

    /// A permit that ends by itself ends its tunnel.
    fn limits(&self, permit: &Permit, connected: u16) -> relay::Limits {
        let config = &self.config;
        let port = match permit.what() {
            What::Tunnel { target, .. } => target.port,
            What::App { .. } => connected,
        };
        let left = permit
            .until()
            .map(|until| until.saturating_duration_since(clock::now()));
        relay::Limits {
            idle: *config.idle_by_port.get(&port).unwrap_or(&config.idle),
            half_closed: config.half_closed,
            absolute: left.map_or(config.absolute, |left| left.min(config.absolute)),
            block: config.block,
        }
    }
}

/// An open tunnel.
#[derive(Debug)]
pub struct Opened {
    /// 200, and the takeover that relays.
    pub answer: Answer,
    /// Who was connected.
    pub address: SocketAddr,
}

/// A refused tunnel as `Proxy-Status` tells it (RFC 9209).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProxyError {
    /// The answer's status.
    pub status: StatusCode,
    /// The registered error type (RFC 9209, section 2.3).
    pub error: &'static str,
    /// What the DNS server said.
    pub rcode: Option<&'static str>,
}

impl ProxyError {
    /// The policy, or the list of ports, says no. So does a name that no policy can match: denied,
    /// invisible and non-existent look alike.
    pub const DENIED: Self = Self::new(StatusCode::FORBIDDEN, "http_request_denied");

    /// The session has as many tunnels as it may have.
    pub const LIMIT: Self = Self::new(StatusCode::SERVICE_UNAVAILABLE, "connection_limit_reached");

    /// A status and a registered error type.
    pub const fn new(status: StatusCode, error: &'static str) -> Self {
        Self {
            status,
            error,
            rcode: None,
        }
    }

    const fn dns(rcode: Option<&'static str>) -> Self {
        Self {
            status: StatusCode::BAD_GATEWAY,
            error: "dns_error",
            rcode,
        }
    }

    /// The value of `Proxy-Status`: nothing of our inside, and the id that finds the reason in
    /// the log.
    pub fn header(&self, gateway: &str, id: refusal::Id) -> HeaderValue {
        let Self { error, rcode, .. } = self;
        let rcode = rcode.map_or_else(String::new, |rcode| format!("; rcode=\"{rcode}\""));
        HeaderValue::try_from(format!(
            "\"{gateway}\"; error={error}{rcode}; details=\"{id}\""
        ))
        .unwrap_or_else(|_not_a_host| HeaderValue::from_static("ravelin"))
    }
}

/// Only for targets that a policy permits: others are told [`ProxyError::DENIED`] and no more.
impl From<&dial::Error> for ProxyError {
    fn from(error: &dial::Error) -> Self {
        use dial::Error as E;
        match error {
            E::Connect { source, .. } => connect_error(source.kind()),
            E::Expired => Self::DENIED,
            E::NoTls(_) | E::Source { .. } => Self::new(
                StatusCode::INTERNAL_SERVER_ERROR,
                "proxy_configuration_error",
            ),
            E::Permit | E::Socket { .. } => {
                Self::new(StatusCode::INTERNAL_SERVER_ERROR, "proxy_internal_error")
            }
            E::Refused { .. } => Self::new(StatusCode::FORBIDDEN, "destination_ip_prohibited"),
            E::Timeout { .. } => Self::new(StatusCode::GATEWAY_TIMEOUT, "connection_timeout"),
            E::Tls { source, .. } => tls_error(source),
            E::Unresolved { source, .. } => match source {
                resolve::Error::Failed { rcode, .. } => Self::dns(*rcode),
                resolve::Error::NoAddress => Self::dns(Some("NOERROR")),
                resolve::Error::NoSuchName => Self::dns(Some("NXDOMAIN")),
                resolve::Error::Silent(_) => Self::new(StatusCode::GATEWAY_TIMEOUT, "dns_timeout"),
            },
        }
    }
}

fn connect_error(kind: std::io::ErrorKind) -> ProxyError {
    use std::io::ErrorKind as K;
    let bad = StatusCode::BAD_GATEWAY;
    if kind == K::ConnectionRefused {
        ProxyError::new(bad, "connection_refused")
    } else if kind == K::ConnectionReset || kind == K::ConnectionAborted {
        ProxyError::new(bad, "connection_terminated")
    } else if kind == K::HostUnreachable || kind == K::NetworkUnreachable {
        ProxyError::new(bad, "destination_ip_unroutable")
    } else if kind == K::TimedOut {
        ProxyError::new(StatusCode::GATEWAY_TIMEOUT, "connection_timeout")
    } else {
        ProxyError::new(StatusCode::SERVICE_UNAVAILABLE, "destination_unavailable")
    }
}

fn tls_error(error: &dial::tls::Error) -> ProxyError {
    use dial::tls::Error as E;
    match error {
        E::Certificate { .. } => ProxyError::new(StatusCode::BAD_GATEWAY, "tls_certificate_error"),
        E::Ending | E::Provider(_) => {
            ProxyError::new(StatusCode::INTERNAL_SERVER_ERROR, "proxy_internal_error")
        }
        E::Handshake(_) => ProxyError::new(StatusCode::BAD_GATEWAY, "tls_protocol_error"),
        E::Authorities { .. } | E::Name(_) | E::NoAuthorities(_) | E::NoSystemAuthorities => {
            ProxyError::new(
                StatusCode::INTERNAL_SERVER_ERROR,
                "proxy_configuration_error",
            )
        }
        E::Timeout(_) => ProxyError::new(StatusCode::GATEWAY_TIMEOUT, "connection_timeout"),
    }
}

#[cfg(test)]
mod tests {
    use std::{net::IpAddr, sync::atomic::Ordering, time::Duration};

    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex},
        net::{TcpListener, TcpStream},
    };
    use tokio_util::sync::DropGuard;

    use super::*;
    use crate::{
        config::{Dns, Network, Source},
        permit::Target,
        shutdown::Tasks,
        web::Stream,
    };

    #[tokio::test]
    async fn a_tunnel_carries_bytes_and_tells_its_end() {
        let mut world = World::open().await;

        world.device.write_all(b"to the backend").await.unwrap();
        world.device.shutdown().await.unwrap();
        let mut came = String::new();
        world.backend.read_to_string(&mut came).await.unwrap();
        assert_eq!(came, "to the backend");
        assert!(!world.over.is_cancelled());
        world.backend.write_all(b"to the device").await.unwrap();
        drop(world.backend);
        let mut came = String::new();
        world.device.read_to_string(&mut came).await.unwrap();
        assert_eq!(came, "to the device");

        world.over.cancelled().await;
        let counts = &world.relayed.counts;
        assert_eq!(counts.up.load(Ordering::Relaxed), 14);
        assert_eq!(counts.down.load(Ordering::Relaxed), 13);
        assert_eq!(world.relayed.end.get(), Some(&"closed"));
    }

    #[tokio::test]
    async fn the_end_of_a_session_resets_the_backend() {
        let mut world = World::open().await;
        world.device.write_all(b"part of").await.unwrap();
        world.backend.read_exact(&mut [0; 7]).await.unwrap();

        world.stop.cancel();

        let error = world.backend.read_u8().await.unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
        world.over.cancelled().await;
        assert_eq!(world.relayed.end.get(), Some(&"stopped"));
    }

    #[tokio::test]
    async fn a_tunnel_that_never_began_is_told_too() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let tunnels = tunnels(address);
        let relayed = Arc::<Relayed>::default();
        let (slot, over) = slot();

        let permit = permit(address);
        let opening = tunnels.open(&permit, CancellationToken::new(), slot, relayed.clone());
        let opened = opening.await.unwrap();
        let (mut backend, _) = listener.accept().await.unwrap();
        assert_eq!(opened.answer.response.status(), StatusCode::OK);
        drop(opened);

        assert!(over.is_cancelled());
        assert_eq!(relayed.end.get(), None);
        let error = backend.read_u8().await.unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    }

    #[tokio::test]
    async fn a_tunnel_that_cannot_be_opened_gives_its_slot_back() {
        let closed = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = closed.local_addr().unwrap();
        drop(closed);
        let (slot, over) = slot();

        let permit = permit(address);
        let tunnels = tunnels(address);
        let opening = tunnels.open(&permit, CancellationToken::new(), slot, Arc::default());
        let refused = opening.await.unwrap_err();

        assert_eq!(ProxyError::from(&refused).error, "connection_refused");
        assert!(over.is_cancelled());
    }

    #[tokio::test]
    async fn limits_follow_port_and_permit() {
        let mail = SocketAddr::from(([127, 0, 0, 1], 993));
        let web = SocketAddr::from(([127, 0, 0, 1], 443));
        let tunnels = tunnels(mail);

        assert_eq!(
            tunnels.limits(&permit(mail), 993).idle,
            Duration::from_secs(2100)
        );
        assert_eq!(
            tunnels.limits(&permit(web), 443).idle,
            Duration::from_secs(900)
        );
        let what = permit(web).what().clone();
        let short = Permit::for_test(what, Some(clock::now() + Duration::from_secs(60)));
        assert!(tunnels.limits(&short, 443).absolute <= Duration::from_secs(60));
        assert!(tunnels.is_port_open(443) && !tunnels.is_port_open(25));
    }

    #[test]
    fn every_error_has_its_status_and_word() {
        use std::io::ErrorKind as K;

        use resolve::Error as R;
        for (error, status, word) in [
            (connect(K::ConnectionRefused), 502, "connection_refused"),
            (connect(K::ConnectionReset), 502, "connection_terminated"),
            (
                connect(K::HostUnreachable),
                502,
                "destination_ip_unroutable",
            ),
            (connect(K::TimedOut), 504, "connection_timeout"),
            (connect(K::Other), 503, "destination_unavailable"),
            (
                unresolved(R::NoSuchName),
                502,
                "dns_error; rcode=\"NXDOMAIN\"",
            ),
            (
                unresolved(R::NoAddress),
                502,
                "dns_error; rcode=\"NOERROR\"",
            ),
            (unresolved(R::Silent(Duration::ZERO)), 504, "dns_timeout"),
            (refused(), 403, "destination_ip_prohibited"),
            (dial::Error::Permit, 500, "proxy_internal_error"),
            (dial::Error::Expired, 403, "http_request_denied"),
            (
                dial::Error::NoTls("x".into()),
                500,
                "proxy_configuration_error",
            ),
        ] {
            let told = ProxyError::from(&error);
            let id = refusal::Id::generate();
            assert_eq!(told.status.as_u16(), status, "{error}");
            assert_eq!(
                told.header("gw.example.com", id),
                format!("\"gw.example.com\"; error={word}; details=\"{id}\"").as_str()
            );
        }
    }

    fn connect(kind: std::io::ErrorKind) -> dial::Error {
        dial::Error::Connect {
            what: "a.test:80".into(),
            address: SocketAddr::from(([10, 0, 0, 1], 80)),
            source: kind.into(),
        }
    }

    fn unresolved(source: resolve::Error) -> dial::Error {
        dial::Error::Unresolved {
            what: "a.test:80".into(),
            source,
        }
    }

    fn refused() -> dial::Error {
        dial::Error::Refused {
            what: "a.test:80".into(),
            address: [127, 0, 0, 1].into(),
            why: "loopback",
        }
    }

    /// A device with an open tunnel, and the backend it reached.
    struct World {
        device: DuplexStream,
        backend: TcpStream,
        stop: CancellationToken,
        relayed: Arc<Relayed>,
        /// Fires when the session gets its slot back.
        over: CancellationToken,
    }

    impl World {
        async fn open() -> Self {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap();
            let tunnels = tunnels(address);
            let stop = CancellationToken::new();
            let (slot, over) = slot();
            let relayed = Arc::<Relayed>::default();
            let (device, near) = duplex(1 << 16);
            let permit = permit(address);
            let opening = tunnels.open(&permit, stop.clone(), slot, Arc::clone(&relayed));
            let opened = opening.await.unwrap();
            let (backend, _) = listener.accept().await.unwrap();
            assert_eq!(opened.answer.response.status(), StatusCode::OK);
            let takeover = opened.answer.then.unwrap();
            drop(Tasks::new().spawn(takeover(Stream::Pipe(near))));
            Self {
                device,
                backend,
                stop,
                relayed,
                over,
            }
        }
    }

    fn slot() -> (DropGuard, CancellationToken) {
        let over = CancellationToken::new();
        (over.clone().drop_guard(), over)
    }

    fn permit(address: SocketAddr) -> Permit {
        let what = What::Tunnel {
            target: Target::parse(&address.to_string()).unwrap(),
            addresses: [address].into(),
        };
        Permit::for_test(what, None)
    }

    fn tunnels(allowed: SocketAddr) -> Tunnels {
        let seconds = Duration::from_secs;
        let network = Network {
            inside: Vec::new(),
            allow: vec![allowed],
            public_addresses: Vec::<IpAddr>::new(),
            source: Source::default(),
            tunnel_sources: Vec::new(),
            connect_timeout: seconds(5),
            attempt_delay: Duration::from_millis(250),
            kept_idle: seconds(60),
            keepalive: seconds(30),
            mss: None,
            user_timeout: seconds(30),
        };
        let dns = Dns {
            servers: Vec::new(),
            zones: Vec::new(),
            source: Source::default(),
            timeout: seconds(1),
            cache_entries: 10,
            max_ttl: seconds(60),
        };
        let config = config::Tunnel {
            idle: seconds(900),
            half_closed: seconds(300),
            absolute: seconds(86400),
            idle_by_port: [(993, seconds(2100))].into(),
            max_per_session: 10,
            opens_per_second: 10,
            block: 64 << 10,
            ports: vec![443, 993],
        };
        let dialer = Arc::new(Dialer::with(&network, &dns, &[], Tasks::new()));
        Tunnels::new(config, dialer)
    }
}
