//! What stands in a row: the gateway, its peers with and without their log, the plain relay.

use std::{
    collections::BTreeMap,
    fs::{self, File, OpenOptions},
    io::{self, BufRead, BufReader},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Stdio,
};

use serde::de::DeserializeOwned;

use super::{
    accounting,
    job::{Addresses, Connect, Target, Tls, Work},
    login::Browser,
    peer::{self, Log, Peer},
    plan::{Row, Service, Shape},
    process::{Cores, Process, Running, quiet},
    site::{APP, GATEWAY, Site},
};

/// A program that can be started for a row.
#[derive(Clone, Debug)]
pub(super) enum Program {
    /// This one, as it ships.
    Gateway,
    /// Another, with or without its access log.
    Peer(Box<Peer>, bool),
    /// Bytes both ways, without TLS: what any relay costs at least.
    Relay,
}

/// Where everything happens.
#[derive(Debug)]
pub(super) struct Field {
    pub(super) site: Site,
    pub(super) running: Running,
    /// For what is measured.
    pub(super) measured: Cores,
    /// For generator and origin.
    pub(super) rest: Cores,
    /// This program.
    pub(super) own: PathBuf,
}

impl Program {
    /// What tables call it.
    pub(super) fn name(&self) -> String {
        match self {
            Self::Gateway => "ravelin".to_owned(),
            Self::Peer(peer, false) => peer.about.name.clone(),
            Self::Peer(peer, true) => format!("{} with log", peer.about.name),
            Self::Relay => "plain relay".to_owned(),
        }
    }

    /// Whether it takes part in a row.
    pub(super) fn serves(&self, row: &Row) -> bool {
        match self {
            Self::Gateway => true,
            Self::Peer(peer, logging) => {
                // Where a line of the log is nothing beside the work, one run is enough.
                let log = !logging || row.logs() && peer.about.log != Log::None;
                row.has_peers() && log && peer.port(row.id).is_some()
            }
            Self::Relay => RELAYED.iter().any(|work| peer::begins(row.id, work)),
        }
    }

    /// Starts it with a fresh folder, and waits until it answers. `apps` is how many sites our
    /// own configuration has.
    ///
    /// # Errors
    ///
    /// When it does not start, or nobody can log in.
    pub(super) fn start(
        &self,
        field: &Field,
        origin: Addresses,
        apps: usize,
    ) -> io::Result<Contender> {
        let folder = field.site.fresh(&self.name().replace(' ', "-"))?;
        let (mut process, ports) = match self {
            Self::Gateway => gateway(field, &origin, &folder, apps)?,
            Self::Peer(peer, logging) => other(peer, *logging, field, &origin, &folder)?,
            Self::Relay => relay(field, &origin)?,
        };
        let answers = || ports.values().all(|port| TcpStream::connect(port).is_ok());
        process.wait_until(answers).map_err(|source| {
            let said = fs::read_to_string(folder.join(ERRORS)).unwrap_or_default();
            io::Error::new(source.kind(), format!("{source}: {}", said.trim()))
        })?;
        let at_start = accounting::resident(process.id())?;
        let mut contender = Contender {
            process,
            at_start,
            program: self.clone(),
            ports,
            log: folder.join(LOG),
            cookie: None,
            authorization: field.site.authorization(),
            trust: field.site.path("ca.pem"),
            origin,
        };
        if matches!(self, Self::Gateway) {
            let roots = field.site.roots().map_err(io::Error::other)?;
            let address = contender.at("p256")?;
            let mut browser = Browser::new(roots, address).map_err(io::Error::other)?;
            let (user, password) = field.site.person();
            contender.cookie = Some(browser.log_in(APP, user, password)?);
        }
        Ok(contender)
    }
}

/// A program that runs.
#[derive(Debug)]
pub(super) struct Contender {
    pub(super) process: Process,
    /// Resident memory before anybody came, in KiB.
    pub(super) at_start: f64,
    program: Program,
    ports: BTreeMap<String, SocketAddr>,
    log: PathBuf,
    cookie: Option<String>,
    authorization: String,
    trust: PathBuf,
    /// The origin that it leads to.
    pub(super) origin: Addresses,
}

impl Contender {
    /// The cookie that a login at the gateway gave; the others are sent the same.
    pub(super) fn cookie(&self) -> Option<&str> {
        self.cookie.as_deref()
    }

    /// What a generator has to know to load it with a row's work.
    ///
    /// # Errors
    ///
    /// When it does not serve that.
    pub(super) fn target(&self, id: &str, shape: &Shape, cookie: &str) -> io::Result<Target> {
        let service = shape.tunnel.map(|service| match service {
            Service::Echo => ("echo", self.origin.echo),
            Service::Sink => ("sink", self.origin.sink),
            Service::Source => ("source", self.origin.source),
        });
        let (name, relays) = match &self.program {
            Program::Gateway => (if shape.rsa { "rsa" } else { "p256" }, false),
            Program::Peer(peer, _) => {
                let port = peer.port(id).unwrap_or_default();
                (port, peer.about.bound.is_some())
            }
            // What does nothing after it has proved to be there proves it with HTTP.
            Program::Relay if shape.work == Work::Idle => ("http", true),
            Program::Relay => (service.map_or("http", |(name, _)| name), true),
        };
        let connect = service.filter(|_| !relays).map(|(_, end)| Connect {
            authority: end.to_string(),
            authorization: Some(self.authorization.clone()),
        });
        let tls = Tls {
            sni: if service.is_some() { GATEWAY } else { APP }.to_owned(),
            trust: self.trust.clone(),
            cipher: shape.cipher,
            group: shape.group,
        };
        let path = match shape.work {
            Work::Download => large(),
            Work::Requests
            | Work::Handshakes
            | Work::Resumptions
            | Work::New
            | Work::TunnelDownload
            | Work::TunnelUpload
            | Work::PingPong
            | Work::Idle => "/1k".to_owned(),
        };
        Ok(Target {
            address: self.at(name)?,
            host: APP.to_owned(),
            path,
            protocol: shape.protocol,
            headers: vec![("cookie".to_owned(), cookie.to_owned())],
            tls: (!matches!(self.program, Program::Relay)).then_some(tls),
            connect,
        })
    }

    /// Empties its access log, which would otherwise fill the disk.
    pub(super) fn forget_log(&self) {
        // It may write none.
        let _none = OpenOptions::new()
            .write(true)
            .truncate(true)
            .open(&self.log);
    }

    fn at(&self, port: &str) -> io::Result<SocketAddr> {
        let known = self.ports.get(port).copied();
        known.ok_or_else(|| io::Error::other(format!("it has no port {port:?}")))
    }
}

/// What the origin answers with a body of megabytes.
pub(super) fn large() -> String {
    format!("/bytes/{BODY}")
}

type Started = (Process, BTreeMap<String, SocketAddr>);

fn gateway(field: &Field, origin: &Addresses, folder: &Path, apps: usize) -> io::Result<Started> {
    let ports = [free()?, free()?];
    let config = field.site.ravelin(folder, ports, origin, apps)?;
    let mut command = quiet(&field.own);
    command.arg("run").arg("-c").arg(config);
    command.stderr(File::create(folder.join(ERRORS))?);
    let process = Process::start(&field.running, &mut command, &field.measured)?;
    let names = ["p256", "rsa"].map(str::to_owned);
    Ok((process, names.into_iter().zip(ports).collect()))
}

fn other(
    peer: &Peer,
    logging: bool,
    field: &Field,
    origin: &Addresses,
    folder: &Path,
) -> io::Result<Started> {
    let log = folder.join(LOG);
    let appended = OpenOptions::new().create(true).append(true).open(&log)?;
    // It may have given up root by the time that it writes.
    fs::set_permissions(&log, fs::Permissions::from_mode(0o666))?;
    let (mut values, ports) = values(peer, field, origin, folder)?;
    let text = peer
        .configuration(&values, logging)
        .map_err(io::Error::other)?;
    // Envoy looks at the end of the name.
    let config = folder.join("config.yaml");
    fs::write(&config, text)?;
    values.insert("config".to_owned(), config.display().to_string());
    let mut command = quiet(&peer.program);
    for argument in &peer.about.command {
        command.arg(peer::fill(argument, &values).map_err(io::Error::other)?);
    }
    if logging && peer.about.log == Log::Stdout {
        command.stdout(appended);
    }
    command.stderr(File::create(folder.join(ERRORS))?);
    let process = Process::start(&field.running, &mut command, &field.measured)?;
    Ok((process, ports))
}

/// What a template's names stand for, and the ports among them.
fn values(
    peer: &Peer,
    field: &Field,
    origin: &Addresses,
    folder: &Path,
) -> io::Result<(BTreeMap<String, String>, BTreeMap<String, SocketAddr>)> {
    let mut values = BTreeMap::new();
    let mut put = |name: &str, value: String| drop(values.insert(name.to_owned(), value));
    put("cores", field.measured.count().to_string());
    put("folder", folder.display().to_string());
    put("log_file", folder.join(LOG).display().to_string());
    for (prefix, name) in [("", "p256"), ("rsa_", "rsa")] {
        for (part, end) in [("chain", "pem"), ("key", "key"), ("both", "both")] {
            let path = field.site.path(&format!("{name}.{end}"));
            put(&format!("{prefix}{part}"), path.display().to_string());
        }
    }
    for (name, address) in [
        ("origin", origin.http),
        ("source", origin.source),
        ("sink", origin.sink),
        ("echo", origin.echo),
    ] {
        put(name, address.to_string());
        put(&format!("{name}_port"), address.port().to_string());
    }
    let mut ports = BTreeMap::new();
    for name in peer.about.ports.keys() {
        let address = free()?;
        put(&format!("port.{name}"), address.port().to_string());
        ports.insert(name.clone(), address);
    }
    Ok((values, ports))
}

fn relay(field: &Field, origin: &Addresses) -> io::Result<Started> {
    let to = serde_json::to_string(origin)?;
    let (process, addresses) = helper(field, &field.measured, &["relay", &to])?;
    let Addresses {
        http,
        sink,
        source,
        echo,
    } = addresses;
    let ports = [
        ("http", http),
        ("sink", sink),
        ("source", source),
        ("echo", echo),
    ];
    let ports = ports.map(|(name, port)| (name.to_owned(), port));
    Ok((process, ports.into_iter().collect()))
}

/// Starts the origin on the cores of the rest.
///
/// # Errors
///
/// When it does not start.
pub(super) fn origin(field: &Field) -> io::Result<(Process, Addresses)> {
    helper(field, &field.rest, &["origin"])
}

fn helper(field: &Field, cores: &Cores, arguments: &[&str]) -> io::Result<(Process, Addresses)> {
    let mut process = spoken_to(field, cores, arguments)?;
    let addresses = Lines::of(&mut process)?.next()?;
    Ok((process, addresses))
}

/// Starts one of our own helpers, which speaks JSON and ends when its standard input closes.
///
/// # Errors
///
/// When it does not start.
pub(super) fn spoken_to(field: &Field, cores: &Cores, arguments: &[&str]) -> io::Result<Process> {
    let mut command = quiet(&field.own);
    command.arg("bench").args(arguments);
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    command.stderr(Stdio::inherit());
    Process::start(&field.running, &mut command, cores)
}

/// What a helper says, line by line.
pub(super) struct Lines(BufReader<std::process::ChildStdout>);

impl Lines {
    /// Takes a helper's standard output.
    pub(super) fn of(process: &mut Process) -> io::Result<Self> {
        let output = process.child.stdout.take();
        let output = output.ok_or_else(|| io::Error::other("a helper has no output"))?;
        Ok(Self(BufReader::new(output)))
    }

    /// The next line's value.
    pub(super) fn next<T: DeserializeOwned>(&mut self) -> io::Result<T> {
        let mut line = String::new();
        if self.0.read_line(&mut line)? == 0 {
            let text = "a helper ended without a word";
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, text));
        }
        Ok(serde_json::from_str(&line)?)
    }
}

/// An address on loopback that nobody listens on.
fn free() -> io::Result<SocketAddr> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()
}

/// Works of which a relay without TLS does a part.
const RELAYED: [&str; 6] = [
    "h1",
    "new",
    "bulk-aes128",
    "tunnel-h1",
    "pingpong",
    "idle-tunnel",
];
/// One body of a bulk row, in bytes.
const BODY: usize = 64 << 20;
const ERRORS: &str = "errors";
const LOG: &str = "access.log";
