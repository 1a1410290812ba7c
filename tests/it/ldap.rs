//! slapd as the company's directory: login, groups, and a directory that is gone.

use std::{
    io::{Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    thread,
    time::{Duration, Instant},
};

use tempfile::TempDir;

use crate::support::{
    certificates::{Authority, Pair},
    free_address,
    gateway::{ALICE, BOB},
    peers::{self, Peer},
    world::World,
};

#[test]
fn a_person_of_the_directory_reaches_what_her_group_may() {
    let (world, _slapd) = directory();

    let alice = world.tunnel(&format!("alice:{ALICE}"), &world.inside());
    let bob = world.tunnel(&format!("bob:{BOB}"), &world.inside());

    assert_eq!(
        (alice.status, alice.body.as_str()),
        (200, "welcome to the intranet\n"),
        "{alice:?}"
    );
    assert_eq!(bob.status, 403, "bob is known, and may not: {bob:?}");
    let line = world
        .gateway
        .log_line("bob's refusal", |line| line["user"] == "bob");
    assert_eq!(line["stage"], "policy");
}

#[test]
fn a_name_that_is_a_filter_finds_nobody() {
    let (world, _slapd) = directory();

    for name in ["*", "alice)(uid=*", "a*", "alice\\2a", "(|(uid=*))"] {
        let refused = world.tunnel(&format!("{name}:{ALICE}"), &world.inside());
        assert_eq!(refused.status, 407, "{name}: {refused:?}");
    }
    let empty = world.tunnel("alice:", &world.inside());
    assert_eq!(
        empty.status, 407,
        "an empty password must not bind: {empty:?}"
    );
}

#[test]
fn a_directory_that_is_down_is_503_and_not_a_wrong_password() {
    let (world, mut slapd) = directory();
    let before = world.tunnel(&format!("alice:{ALICE}"), &world.inside());
    assert_eq!(before.status, 200, "{before:?}");

    slapd.kill();

    let after = world.tunnel(&format!("bob:{BOB}"), &world.inside());
    assert_eq!(after.status, 503, "{after:?}");
    let id = crate::connect::refusal_id(&after.trace);
    let line = world
        .gateway
        .log_line("the refusal", |line| line["refusal"] == id.as_str());
    assert_eq!(line["stage"], "login", "{line}");
}

#[test]
fn no_password_is_in_any_log() {
    let (world, _slapd) = directory();
    world.tunnel(&format!("alice:{ALICE}"), &world.inside());
    world.tunnel("alice:canary-7319", &world.inside());
    world.tunnel("canary-user-7319:x", &world.inside());

    let logs = world.gateway.all_logs();

    for secret in [
        ALICE,
        "canary-7319",
        "canary-user-7319",
        "service secret",
        "Y29ycmVjdCBob3JzZQ",
    ] {
        assert!(!logs.contains(secret), "{secret} is in a log");
    }
}

#[test]
fn start_tls_protects_what_goes_to_port_389() {
    let tls = Tls::new();
    let slapd = peers::slapd_by("ldap", Some((&tls.pair, &tls.authority)));
    let proxy = Proxy::start(slapd.address);

    let world = world(&[format!("ldap://{}", proxy.address)], &tls.authority, "");

    let alice = world.tunnel(&format!("alice:{ALICE}"), &world.inside());
    assert_eq!(alice.status, 200, "{alice:?}");
    assert_eq!(proxy.binds(), 0, "no bind in clear text");
    assert!(
        !proxy.seen("correct horse"),
        "the password went in clear text"
    );
}

#[test]
fn a_server_without_tls_is_not_told_a_password() {
    let tls = Tls::new();
    let slapd = peers::slapd(None);
    let proxy = Proxy::start(slapd.address);
    let world = world(&[format!("ldap://{}", proxy.address)], &tls.authority, "");

    let refused = world.tunnel(&format!("alice:{ALICE}"), &world.inside());

    assert_eq!(refused.status, 503, "{refused:?}");
    assert!(
        !proxy.seen("secret") && proxy.binds() == 0,
        "a bind in clear text"
    );
}

#[test]
fn the_second_server_answers_when_the_first_is_gone_or_silent() {
    let slapd = peers::slapd(None);
    let gone = free_address();
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();

    for first in [gone, silent.local_addr().unwrap()] {
        let servers = [first, slapd.address].map(|address| format!("ldap://{address}"));
        let world = world(&servers, Path::new("system"), PLAIN);
        let alice = world.tunnel(&format!("alice:{ALICE}"), &world.inside());
        assert_eq!(alice.status, 200, "{first}: {alice:?}");
    }
}

#[test]
fn a_password_is_tried_on_one_server_once() {
    let slapd = peers::slapd(None);
    let proxies = [Proxy::start(slapd.address), Proxy::start(slapd.address)];
    let servers = proxies
        .each_ref()
        .map(|proxy| format!("ldap://{}", proxy.address));
    let world = world(&servers, Path::new("system"), PLAIN);

    let wrong = world.tunnel("alice:canary-once", &world.inside());

    assert_eq!(wrong.status, 407, "{wrong:?}");
    assert_eq!(
        (proxies[0].binds(), proxies[1].binds()),
        (2, 0),
        "the service account's bind and the person's"
    );
    assert!(
        proxies[0].seen("canary-once"),
        "the proxy sees what is sent"
    );
    let again = world.tunnel("alice:canary-once", &world.inside());
    assert_eq!(again.status, 407, "{again:?}");
    assert_eq!(proxies[0].binds(), 2, "answered from memory");
    let right = world.tunnel(&format!("alice:{ALICE}"), &world.inside());
    assert_eq!(right.status, 200, "{right:?}");
    assert_eq!((proxies[0].binds(), proxies[1].binds()), (3, 0));
}

#[test]
fn a_directory_that_hangs_or_talks_rubbish_is_503_in_time() {
    let nested = [0x30, 0x84, 0, 0, 0x40, 0].repeat(4000);
    let rubbish: [(&str, Vec<u8>); 6] = [
        ("silence", Vec::new()),
        ("sequences in sequences", nested),
        ("indefinite lengths", [0x30, 0x80].repeat(20_000)),
        ("more than memory", vec![0x30, 0x84, 0xff, 0xff, 0xff, 0xff]),
        (
            "another protocol",
            b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec(),
        ),
        // A BindResponse with a result of no length, and one to a message that nobody sent.
        (
            "no result",
            b"\x30\x07\x02\x01\x01\x61\x02\x0a\x00\x30\x03\x02\x01\x63".to_vec(),
        ),
    ];
    for (what, answer) in rubbish {
        let server = saying(answer);
        let world = world(&[format!("ldap://{server}")], Path::new("system"), PLAIN);
        let asked = Instant::now();

        let refused = world.tunnel(&format!("alice:{ALICE}"), &world.inside());

        assert_eq!(refused.status, 503, "{what}: {refused:?}");
        assert!(
            asked.elapsed() < Duration::from_secs(20),
            "{what}: {:?}",
            asked.elapsed()
        );
        let id = crate::connect::refusal_id(&refused.trace);
        world
            .gateway
            .log_line("the refusal", |line| line["refusal"] == id.as_str());
        assert_eq!(world.gateway.metric("ravelin_panics "), Some(0.0), "{what}");
        let unanswered = "ravelin_password_checks_total{outcome=\"unanswered\"}";
        assert_eq!(world.gateway.metric(unanswered), Some(1.0), "{what}");
    }
}

/// A world whose people are in slapd, over LDAPS.
pub(crate) fn directory() -> (World, Peer) {
    directory_with("")
}

/// The same, with more settings of `[login]`.
pub(crate) fn directory_with(login: &str) -> (World, Peer) {
    let tls = Tls::new();
    let slapd = peers::slapd(Some((&tls.pair, &tls.authority)));
    let servers = [format!("ldaps://{}", slapd.address)];
    let world = world(&servers, &tls.authority, &format!("[login]\n{login}"));
    (world, slapd)
}

/// A world whose people are in these servers. `more` begins inside the directory's table, and
/// may go on with `[login]`.
fn world(servers: &[String], authority: &Path, more: &str) -> World {
    let (directory, login) = more.split_once("[login]").unwrap_or((more, ""));
    World::build(&[], |site| {
        let ca = if authority.is_absolute() {
            std::fs::copy(authority, site.path("directory-ca.pem")).unwrap();
            "directory-ca.pem"
        } else {
            "system"
        };
        site.write("ldap-secret", "service secret\n");
        let secret = site.path("ldap-secret");
        std::fs::set_permissions(secret, std::os::unix::fs::PermissionsExt::from_mode(0o600))
            .unwrap();
        format!(
            "[directory.corp]\ntype = \"ldap\"\nservers = {servers:?}\nca = \"{ca}\"\n\
             bind_dn = \"cn=ravelin,dc=corp,dc=test\"\nbind_password = \"file:ldap-secret\"\n\
             user_base = \"ou=people,dc=corp,dc=test\"\nuser_attribute = \"uid\"\n\
             group_base = \"dc=corp,dc=test\"\ngroup_member = \"member\"\ngroup_name = \"cn\"\n\
             {directory}\n[login]\ndirectories = [\"corp\"]\n{login}\n"
        )
    })
}

/// Clear text, so that a proxy can look into it; and short limits.
const PLAIN: &str = "start_tls = false\nplain_ldap = \"I accept\"\n\
                     connect_timeout = \"2s\"\noperation_timeout = \"2s\"\ntotal_timeout = \"8s\"\n";

/// A certificate for a directory, and who signed it.
struct Tls {
    pair: Pair,
    authority: PathBuf,
    _directory: TempDir,
}

impl Tls {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let authority = Authority::new(directory.path(), "directory-ca");
        Self {
            pair: authority.issue("slapd", &["127.0.0.1", "ldap.corp.test"]),
            authority: directory.path().join("directory-ca.pem"),
            _directory: directory,
        }
    }
}

/// Stands before a directory and keeps what clients send; ends with the test's process.
struct Proxy {
    address: SocketAddr,
    sent: Arc<Mutex<Vec<Vec<u8>>>>,
}

impl Proxy {
    fn start(directory: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let sent = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&sent);
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let server = TcpStream::connect(directory).unwrap();
                let (mut from, mut to) = (server.try_clone().unwrap(), client.try_clone().unwrap());
                thread::spawn(move || {
                    drop(std::io::copy(&mut from, &mut to));
                    drop(to.shutdown(Shutdown::Both));
                });
                let seen = Arc::clone(&seen);
                thread::spawn(move || pass_on(client, server, &seen));
            }
        });
        Self { address, sent }
    }

    /// Bind requests so far: each is a message of its own, and they are short.
    fn binds(&self) -> usize {
        let sent = self.sent.lock().unwrap();
        let bind = |message: &&Vec<u8>| matches!(message[..], [0x30, 0..=0x7f, 2, 1, _, 0x60, ..]);
        sent.iter().filter(bind).count()
    }

    /// Whether clients sent this text.
    fn seen(&self, text: &str) -> bool {
        let sent = self.sent.lock().unwrap().concat();
        sent.windows(text.len()).any(|part| part == text.as_bytes())
    }
}

fn pass_on(mut client: TcpStream, mut server: TcpStream, seen: &Mutex<Vec<Vec<u8>>>) {
    let mut buffer = [0; 65536];
    while let Ok(length @ 1..) = client.read(&mut buffer) {
        seen.lock().unwrap().push(buffer[..length].to_vec());
        if server.write_all(&buffer[..length]).is_err() {
            break;
        }
    }
    drop(server.shutdown(Shutdown::Both));
}

/// A server that says the same to everybody once it is asked, and never ends.
fn saying(answer: Vec<u8>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for mut client in listener.incoming().map_while(Result::ok) {
            let answer = answer.clone();
            thread::spawn(move || {
                let mut buffer = [0; 4096];
                while let Ok(1..) = client.read(&mut buffer) {
                    if client.write_all(&answer).is_err() {
                        break;
                    }
                }
            });
        }
    });
    address
}
