//! The company around the demo's gateway: certificates, people, and stand-ins on loopback.
//!
//! Nothing here is part of the gateway, which runs from the `ravelin.toml` that is written here as
//! it would from any other. Nothing else imports this module but the command that starts it.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::Duration,
};

use data_encoding::{BASE32_NOPAD, HEXLOWER};

use self::{
    authority::Authority,
    company::Company,
    configuration::{HOST, INSIDE, OUTSIDE},
    facts::{Apps, Facts, Person, Targets},
    folder::Folder,
    lines::Extras,
};
use crate::{auth::users::hash_password, clock, config::Secret, crypto, shutdown::Tasks};

pub(crate) mod authority;
mod broker;
mod company;
mod configuration;
mod desktop;
mod dns;
mod facts;
pub(crate) mod folder;
mod intranet;
mod lines;
mod node;
mod payroll;
mod site;
mod store;
mod websocket;

/// A company that runs, and the configuration of a gateway for it.
#[derive(Debug)]
pub(crate) struct Demo {
    facts: Facts,
    folder: Folder,
    pin: String,
    tasks: Tasks,
}

impl Demo {
    /// Fills a folder (`None`: a temporary one) and starts the stand-ins.
    ///
    /// `port` is the gateway's on 127.0.0.1; with 0 the kernel chooses.
    ///
    /// # Errors
    ///
    /// When the folder or a port cannot be used.
    pub(crate) async fn start(folder: Option<&Path>, port: u16) -> Result<Self, Error> {
        let gateway = free(port).map_err(|source| Error::Port { port, source })?;
        let admin = free(0).map_err(Error::StandIn)?;
        let folder = Folder::prepare(folder)?;
        let tasks = Tasks::new();
        let authority = Authority::generate(clock::wall()).map_err(Error::Certificate)?;
        let company = Company::start(&tasks, &authority).await?;
        let facts = facts(&folder, gateway, admin, &company);

        // First of all, since it marks the folder as a demo's.
        let ravelin = configuration::ravelin(gateway, admin, &company);
        folder.write(folder::CONFIG, ravelin.as_bytes())?;
        let policies = configuration::policies(company.intranet);
        folder.write("policies/demo.cedar", policies.as_bytes())?;
        folder.write("users", users(&tasks, &facts.users).await?.as_bytes())?;
        let names = ["gw", "intranet", "store", "xm"].map(|name| format!("{name}.{OUTSIDE}"));
        let issued = authority
            .issue(&names.each_ref().map(String::as_str), &[])
            .map_err(Error::Certificate)?;
        // The gateway appends to it; made here, it is its owner's alone from its first line.
        folder.write("access.log", b"")?;
        folder.write("certs/ca.pem", authority.pem().as_bytes())?;
        folder.write("certs/gw.pem", issued.chain.as_bytes())?;
        folder.write("certs/gw.key", issued.key.as_bytes())?;
        Ok(Self {
            facts,
            folder,
            pin: issued.pin,
            tasks,
        })
    }

    /// The configuration for the gateway to run from.
    pub(crate) fn config(&self) -> &Path {
        &self.facts.config
    }

    /// Tells the world, once the gateway listens: writes `demo.json`, and gives the text to print.
    ///
    /// # Errors
    ///
    /// When the file cannot be written.
    pub(crate) fn open(&self, colour: bool) -> Result<String, Error> {
        let json = serde_json::to_vec_pretty(&self.facts).map_err(Error::Facts)?;
        self.folder.write("demo.json", &json)?;
        let program = std::env::current_exe().unwrap_or_else(|_unknown| PathBuf::from("ravelin"));
        let set = |names: &[&str]| names.iter().any(|name| std::env::var_os(name).is_some());
        let extras = Extras {
            browser: BROWSERS.into_iter().find(|name| installed(name)),
            display: set(&["DISPLAY", "WAYLAND_DISPLAY"]),
            pin: &self.pin,
            folder: self.folder.path(),
            temporary: self.folder.is_temporary(),
            program: &program,
            proxied: set(&PROXIES),
            root: std::fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0),
        };
        Ok(lines::text(&self.facts, &extras, colour))
    }

    /// Ends the stand-ins; a temporary folder goes away.
    pub(crate) async fn end(self) {
        // Whether they ended by themselves matters to nobody.
        let _complete = self.tasks.drain(END).await;
    }
}

/// Whether a shell would find this program.
fn installed(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(program).is_file())
}

/// An address on loopback that nobody listens on.
fn free(port: u16) -> io::Result<SocketAddr> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port))?.local_addr()
}

fn facts(folder: &Folder, gateway: SocketAddr, admin: SocketAddr, company: &Company) -> Facts {
    let person = |name, group| Person {
        name,
        password: password(),
        groups: vec![group],
    };
    let app = |host: &str, path: &str| {
        let port = gateway.port();
        format!("https://{host}.{OUTSIDE}:{port}{path}")
    };
    let target = |host: &str, at: SocketAddr| format!("{host}.{INSIDE}:{}", at.port());
    Facts {
        gateway,
        host: HOST,
        ca: folder.path().join("certs/ca.pem"),
        config: folder.path().join(folder::CONFIG),
        users: vec![person("alice", "sales"), person("bob", "contractors")],
        apps: Apps {
            intranet: app("intranet", "/"),
            storefront: app("store", "/Citrix/StoreWeb/"),
            xenmobile: app("xm", "/zdm/"),
        },
        tunnel_targets: Targets {
            allowed: target("intranet", company.intranet),
            denied: target("payroll", company.payroll),
        },
        sta: format!("https://{}{}", company.broker, broker::PATH),
        admin: format!("http://{admin}"),
        control: folder.path().join(folder::CONTROL),
    }
}

async fn users(tasks: &Tasks, people: &[Person]) -> Result<String, Error> {
    let mut lines = Vec::new();
    for person in people {
        let secret = Secret::new(person.password.clone().into_bytes());
        // Slow by design, so not on a worker of the runtime.
        let hash = tasks.spawn_blocking(move || hash_password(&secret)).await;
        lines.push((person, hash.map_err(Error::Hash)?));
    }
    Ok(configuration::users(&lines))
}

/// 80 random bits as sixteen characters; base 32 has no 0 and no 1 to be misread.
fn password() -> String {
    BASE32_NOPAD
        .encode(&crypto::random::<10>())
        .to_ascii_lowercase()
}

/// A random text for cookies of the stand-ins.
fn token() -> String {
    HEXLOWER.encode(&crypto::random::<12>())
}

/// Why there is no demo.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// A certificate cannot be made.
    #[error("making the demo's certificates")]
    Certificate(#[source] rcgen::Error),
    /// `demo.json` cannot be made.
    #[error("writing down the demo's facts")]
    Facts(#[source] serde_json::Error),
    /// The folder cannot be used.
    #[error(transparent)]
    Folder(#[from] folder::Error),
    /// A password cannot be hashed.
    #[error("hashing a password")]
    Hash(#[source] tokio::task::JoinError),
    /// A certificate just made cannot be read.
    #[error("reading a certificate of a stand-in")]
    Pem(#[source] rustls::pki_types::pem::Error),
    /// The gateway's port is taken or forbidden.
    #[error("127.0.0.1:{port} cannot be used for the gateway; choose another with --port")]
    Port {
        /// Which.
        port: u16,
        /// What the kernel said.
        source: io::Error,
    },
    /// A stand-in cannot listen.
    #[error("starting a stand-in")]
    StandIn(#[source] io::Error),
    /// A stand-in cannot speak TLS.
    #[error("setting up TLS of a stand-in")]
    Tls(#[source] rustls::Error),
}

/// Names of one and the same browser.
const BROWSERS: [&str; 4] = [
    "chromium",
    "chromium-browser",
    "google-chrome",
    "google-chrome-stable",
];

/// What curl and browsers read.
const PROXIES: [&str; 5] = [
    "ALL_PROXY",
    "HTTPS_PROXY",
    "all_proxy",
    "http_proxy",
    "https_proxy",
];

const END: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt, process::Command, sync::Arc};

    use rustls::{
        ClientConfig, RootCertStore,
        pki_types::{CertificateDer, ServerName, pem::PemObject},
    };
    use serde_json::Value;
    use tokio::{
        io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
        net::TcpStream,
    };
    use tokio_rustls::{TlsConnector, client::TlsStream};

    use super::*;

    async fn exchange(mut stream: impl AsyncRead + AsyncWrite + Unpin, head: &str) -> String {
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        // The end of the answer is the end of the connection, with or without ceremony.
        let _ended = stream.read_to_end(&mut answer).await;
        String::from_utf8_lossy(&answer).into_owned()
    }

    async fn plain(address: SocketAddr) -> TcpStream {
        TcpStream::connect(address).await.unwrap()
    }

    async fn tls(authority: &Authority, address: SocketAddr, name: &str) -> TlsStream<TcpStream> {
        let mut roots = RootCertStore::empty();
        let root = CertificateDer::from_pem_slice(authority.pem().as_bytes()).unwrap();
        roots.add(root).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let connector = TlsConnector::from(Arc::new(config));
        connector.connect(name, plain(address).await).await.unwrap()
    }

    async fn company() -> (Tasks, Authority, Company) {
        let tasks = Tasks::new();
        let authority = Authority::generate(clock::wall()).unwrap();
        let company = Company::start(&tasks, &authority).await.unwrap();
        (tasks, authority, company)
    }

    fn get(path: &str) -> String {
        format!("GET {path} HTTP/1.1\r\nHost: x.corp.test\r\nConnection: close\r\n\r\n")
    }

    #[tokio::test]
    async fn the_two_nodes_name_themselves_and_mark_devices_differently() {
        let (_tasks, authority, company) = company().await;
        let mut marks = Vec::new();

        for (address, name) in company.nodes.into_iter().zip(["xm1", "xm2"]) {
            let stream = tls(&authority, address, "xm.ravelin.test").await;
            let answer = exchange(stream, &get("/zdm/node;jsessionid=1")).await;

            assert!(answer.ends_with(&format!("\r\n\r\n{name}\n")), "{answer}");
            let mark = answer.split("ACNODEID=").nth(1).unwrap();
            marks.push(mark.split(';').next().unwrap().to_owned());
        }

        assert_ne!(marks[0], marks[1]);
    }

    #[tokio::test]
    async fn a_get_of_the_ticket_service_is_406_and_a_post_gives_a_ticket() {
        let (_tasks, authority, company) = company().await;
        let body =
            "<CtxSTAProtocol version=\"4.0\"><RequestTicket/><RequestTicket></RequestTicket>";
        let post = format!(
            "POST {} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
            broker::PATH,
            body.len()
        );

        let probe = tls(&authority, company.broker, "127.0.0.1").await;
        let probe = exchange(probe, &get(broker::PATH)).await;
        let ticket = tls(&authority, company.broker, "sta.corp.test").await;
        let ticket = exchange(ticket, &post).await;

        assert!(probe.starts_with("HTTP/1.1 406 "), "{probe}");
        assert!(ticket.contains("<TicketVersion>40<"), "{ticket}");
    }

    #[tokio::test]
    async fn the_intranet_escapes_what_it_shows() {
        let (_tasks, _authority, company) = company().await;
        let head = "GET / HTTP/1.1\r\nHost: i\r\nX-Test: <script>\r\nConnection: close\r\n\r\n";

        let page = exchange(plain(company.intranet).await, head).await;

        assert!(page.contains("<th>x-test<td>&lt;script&gt;"), "{page}");
    }

    #[tokio::test]
    async fn a_body_beyond_the_limit_is_refused() {
        let (_tasks, _authority, company) = company().await;
        let head = "POST /echo HTTP/1.1\r\nHost: i\r\nContent-Length: 65537\r\n\r\n";
        let request = format!("{head}{}", "x".repeat(65537));

        let mut stream = plain(company.intranet).await;
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut status = [0; 12];
        stream.read_exact(&mut status).await.unwrap();

        assert_eq!(&status, b"HTTP/1.1 413");
    }

    #[tokio::test]
    async fn the_websocket_gives_back_what_it_gets_and_closes_when_asked() {
        let (_tasks, _authority, company) = company().await;
        let mut stream = plain(company.intranet).await;
        let head = "GET /ws HTTP/1.1\r\nHost: i\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                    Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
        // "hi" masked, an empty ping, and the close.
        let frames = [
            0x81,
            0x82,
            1,
            2,
            3,
            4,
            b'h' ^ 1,
            b'i' ^ 2,
            0x89,
            0x80,
            0,
            0,
            0,
            0,
            0x88,
            0x80,
            0,
            0,
            0,
            0,
        ];

        stream.write_all(head.as_bytes()).await.unwrap();
        stream.write_all(&frames).await.unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.unwrap();

        let end = answer.windows(4).position(|w| w == b"\r\n\r\n").unwrap();
        assert!(answer.starts_with(b"HTTP/1.1 101 "));
        assert_eq!(&answer[end + 4..], b"\x81\x02hi\x8a\x00\x88\x00");
    }

    #[tokio::test]
    async fn the_desktop_gives_back_every_byte() {
        let (_tasks, _authority, company) = company().await;
        let mut stream = plain(company.desktop).await;

        stream.write_all(b"bytes").await.unwrap();
        stream.shutdown().await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();

        assert_eq!(answer, "bytes");
    }

    #[tokio::test]
    async fn the_facts_have_the_shape_that_programs_expect() {
        let demo = Demo::start(None, 0).await.unwrap();
        let folder = demo.folder.path().to_owned();

        drop(demo.open(false).unwrap());

        let file = folder.join("demo.json");
        let mode = fs::metadata(&file).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let facts: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
        let keys = |value: &Value| {
            let mut keys: Vec<_> = value.as_object().unwrap().keys().cloned().collect();
            keys.sort();
            keys.join(" ")
        };
        assert_eq!(
            keys(&facts),
            "admin apps ca config control gateway host sta tunnel_targets users"
        );
        assert_eq!(keys(&facts["apps"]), "intranet storefront xenmobile");
        assert_eq!(keys(&facts["tunnel_targets"]), "allowed denied");
        assert_eq!(keys(&facts["users"][0]), "groups name password");
        assert_eq!(facts["users"][0]["name"], "alice");
        assert!(facts["gateway"].as_str().unwrap().starts_with("127.0.0.1:"));
        for path in ["ca", "config"] {
            assert!(Path::new(facts[path].as_str().unwrap()).is_file());
        }

        demo.end().await;
        assert!(!folder.exists());
    }

    #[tokio::test]
    async fn every_file_is_its_owners_alone_and_the_ca_key_is_not_kept() {
        let demo = Demo::start(None, 0).await.unwrap();
        drop(demo.open(false).unwrap());
        let mut folders = vec![demo.folder.path().to_owned()];
        let mut files = Vec::new();

        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).unwrap() {
                let entry = entry.unwrap();
                let mode = entry.metadata().unwrap().permissions().mode();
                assert_eq!(mode & 0o077, 0, "{:?}", entry.path());
                if entry.file_type().unwrap().is_dir() {
                    folders.push(entry.path());
                } else {
                    files.push(entry.file_name().into_string().unwrap());
                }
            }
        }

        files.sort();
        let expected = [
            "access.log",
            "ca.pem",
            "demo.cedar",
            "demo.json",
            "gw.key",
            "gw.pem",
            "ravelin.toml",
            "users",
        ];
        assert_eq!(files, expected);
    }

    #[tokio::test]
    async fn what_is_printed_fits_a_terminal_and_a_shell() {
        let demo = Demo::start(None, 0).await.unwrap();

        let text = demo.open(false).unwrap();
        const COMMANDS: [&str; 6] = ["/", "CSRF=", "TOKEN=", "chrom", "curl ", "tail "];

        for line in text.lines() {
            // A word that cannot be broken, such as a path, may stand alone on a longer line.
            let word = line.trim().trim_end_matches(" \\");
            let unbreakable = !word.contains(' ') || word.starts_with(['-', '/', '\'']);
            assert!(line.chars().count() <= 80 || unbreakable, "{line}");
        }
        let commands: Vec<_> = text
            .split("\n\n")
            .map(str::trim)
            .filter(|part| COMMANDS.iter().any(|word| part.starts_with(word)))
            .collect();
        assert!(commands.len() >= 15, "{commands:#?}");
        for command in commands {
            let checked = Command::new("sh").args(["-n", "-c", command]).status();
            assert!(checked.unwrap().success(), "{command}");
        }
    }

    #[tokio::test]
    async fn a_taken_port_is_named() {
        let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = taken.local_addr().unwrap().port();

        let error = Demo::start(None, port).await.unwrap_err();

        assert!(error.to_string().contains(&format!("127.0.0.1:{port} ")));
    }

    #[tokio::test]
    async fn the_gateway_accepts_its_configuration_and_policies() {
        let demo = Demo::start(None, 0).await.unwrap();

        let config = crate::config::Config::load(demo.config()).unwrap();
        let problems = crate::policy::check(&config.policy.files);

        assert!(config.demo);
        assert!(problems.is_empty(), "{problems:?}");
    }

    #[tokio::test]
    async fn the_configuration_allows_exactly_the_stand_ins() {
        let demo = Demo::start(None, 0).await.unwrap();
        let text = fs::read_to_string(demo.config()).unwrap();

        let config: toml::Table = text.parse().unwrap();

        assert_eq!(config["demo"].as_bool(), Some(true));
        let allowed = config["network"]["allow"].as_array().unwrap();
        assert_eq!(allowed.len(), 7);
        for address in allowed {
            let address: SocketAddr = address.as_str().unwrap().parse().unwrap();
            assert!(address.ip().is_loopback());
            drop(plain(address).await);
        }
    }
}
