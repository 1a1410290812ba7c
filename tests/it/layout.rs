//! The shape of the source: what `ARCHITECTURE.md` promises and no compiler checks.

use std::{
    fs,
    path::{Path, PathBuf},
};

#[test]
fn every_file_says_what_it_is_for() {
    for folder in ["src", "tests/it", "benches", "fuzz/fuzz_targets"] {
        for source in sources(folder) {
            let headline = source.text.lines().next().unwrap_or_default();
            let sentence = headline.starts_with("//! ") && headline.len() > 20;
            assert!(sentence, "{} has no headline", source.name);
        }
    }
}

#[test]
fn no_module_is_a_mod_rs() {
    for source in sources("src") {
        assert!(!source.name.ends_with("/mod.rs"), "{}", source.name);
    }
}

#[test]
fn each_dependency_has_one_door() {
    let manifest = fs::read_to_string(root().join("Cargo.toml")).unwrap();
    let (_, rest) = manifest.split_once("[dependencies]\n").unwrap();
    let (dependencies, _) = rest.split_once("\n\n").unwrap();
    let sources = sources("src");
    for line in dependencies.lines() {
        let name = line.split(" =").next().unwrap().replace('-', "_");
        let door = DOORS.iter().find(|(known, _)| *known == name);
        assert!(
            door.is_some() || LANGUAGE.contains(&&*name),
            "{name} has no door: say in this file who may name it"
        );
        let users: Vec<&Source> = sources.iter().filter(|s| s.names(&name)).collect();
        assert!(!users.is_empty(), "nobody names {name}");
        let Some((_, doors)) = door else { continue };
        for user in users {
            assert!(
                doors.iter().any(|door| user.is_in(door)),
                "{} names {name}, whose door is {doors:?}",
                user.name
            );
        }
        for door in *doors {
            assert!(
                sources.iter().any(|s| s.is_in(door) && s.names(&name)),
                "{door} is a door to {name} that nobody uses"
            );
        }
    }
}

#[test]
fn a_module_names_only_those_before_it() {
    for source in sources("src") {
        let module = source.module();
        let Some(own) = place(module) else { continue };
        if KNOW_ALL.iter().any(|known| source.is_in(known)) {
            continue;
        }
        for named in source.modules() {
            let excused = BACKWARDS
                .iter()
                .any(|(file, back, _)| source.is_in(file) && *back == named);
            let earlier = place(&named).is_none_or(|place| place <= own);
            assert!(
                earlier || excused,
                "{} names {named}, a later stage",
                source.name
            );
        }
    }
}

#[test]
fn the_order_of_modules_knows_every_module() {
    let library = fs::read_to_string(root().join("src/lib.rs")).unwrap();
    for line in library.lines() {
        let line = line.trim_start_matches("pub ");
        if let Some(module) = line.strip_prefix("mod ") {
            let module = module.trim_end_matches(';');
            assert!(place(module).is_some(), "{module} has no place in ORDER");
        }
    }
}

#[test]
fn codecs_know_bytes_only() {
    for codec in BYTES_ONLY {
        let source = sources("src").into_iter().find(|s| s.name == *codec);
        let source = source.unwrap_or_else(|| panic!("{codec} is gone"));
        for word in [
            "crate::",
            "async ",
            ".await",
            "tokio",
            "hyper",
            "Instant",
            "SystemTime",
            "std::net::Tcp",
            "std::fs",
            "std::io::Read",
            "unwrap(",
            "expect(",
            "panic!",
        ] {
            assert!(!source.code.contains(word), "{codec} has {word:?}");
        }
    }
}

#[test]
fn only_the_clock_reads_the_clock() {
    for source in sources("src") {
        // `Instant::now` is clippy's to find: tokio's, which tests can stop, has the same name.
        for word in ["SystemTime::now", "UtcDateTime::now", "OffsetDateTime::now"] {
            let here = source.code.contains(word);
            assert!(
                !here || source.name == "src/clock.rs",
                "{} has {word}",
                source.name
            );
        }
    }
}

#[test]
fn only_dial_opens_connections_outwards() {
    for source in sources("src") {
        let excused = OUTWARDS.iter().any(|(file, _)| source.is_in(file));
        for word in [
            "TcpStream::connect",
            "TcpSocket::new",
            "UdpSocket::bind",
            "UnixStream::connect",
        ] {
            assert!(
                excused || !source.code.contains(word),
                "{} has {word}: only dial leads out",
                source.name
            );
        }
    }
}

#[test]
fn nothing_is_spawned_behind_the_back_of_a_drain() {
    for source in sources("src") {
        for word in ["tokio::spawn(", "task::spawn(", "spawn_local("] {
            let here = source.code.contains(word);
            assert!(
                !here || source.name == "src/shutdown.rs",
                "{} has {word}",
                source.name
            );
        }
    }
}

#[test]
fn nothing_is_unsafe() {
    let manifest = fs::read_to_string(root().join("Cargo.toml")).unwrap();
    assert!(manifest.contains("unsafe_code = \"forbid\""));
    for source in sources("src") {
        let unsafe_here = source.code.contains("unsafe {") || source.code.contains("unsafe fn");
        assert!(!unsafe_here, "{}", source.name);
    }
}

#[test]
fn a_long_file_has_a_reason() {
    for folder in ["src", "benches"] {
        for source in sources(folder) {
            let lines = source.code.lines().count();
            let reason = LONG.iter().find(|(name, _)| *name == source.name);
            match reason {
                None => assert!(
                    lines <= LONGEST,
                    "{} has {lines} lines of code: has it a second subject?",
                    source.name
                ),
                Some((name, reason)) => {
                    assert!(lines > LONGEST, "{name} is short by now ({reason})");
                }
            }
        }
    }
}

#[test]
fn every_document_that_is_linked_exists() {
    let mut documents: Vec<PathBuf> = [
        "README.md",
        "ARCHITECTURE.md",
        "CONTRIBUTING.md",
        "SECURITY.md",
    ]
    .iter()
    .map(|name| root().join(name))
    .collect();
    for entry in fs::read_dir(root().join("docs")).unwrap() {
        documents.push(entry.unwrap().path());
    }
    for document in documents
        .iter()
        .filter(|path| path.extension().is_some_and(|e| e == "md"))
    {
        let text = fs::read_to_string(document).unwrap();
        for link in text.split("](").skip(1) {
            let link = link.split(')').next().unwrap().split('#').next().unwrap();
            if link.is_empty() || link.contains("://") {
                continue;
            }
            let path = document.parent().unwrap().join(link);
            assert!(path.exists(), "{} links to {link}", document.display());
        }
    }
}

#[test]
fn the_code_map_names_every_file_that_it_should() {
    let map = fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    for source in sources("src") {
        let module = source.module();
        assert!(
            map.contains(&format!("`{module}")) || map.contains(&format!("{module}.rs")),
            "ARCHITECTURE.md does not speak of {module}"
        );
    }
    assert!(
        map.lines().count() <= 200,
        "ARCHITECTURE.md is a page, not a book"
    );
}

/// A file, and its code without comments and tests.
struct Source {
    name: String,
    text: String,
    code: String,
}

impl Source {
    fn read(path: &Path) -> Self {
        let text = fs::read_to_string(path).unwrap();
        let name = path
            .strip_prefix(root())
            .unwrap()
            .to_str()
            .unwrap()
            .to_owned();
        let only_test = TESTS.iter().any(|part| name.contains(part));
        let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
        let code: Vec<&str> = code
            .lines()
            .filter(|line| !line.trim_start().starts_with("//"))
            .collect();
        let code = if only_test {
            String::new()
        } else {
            code.join("\n")
        };
        Self { name, text, code }
    }

    /// Whether the file is this one, or in the folder of that module.
    fn is_in(&self, module: &str) -> bool {
        let path = format!("src/{module}");
        self.name == format!("{path}.rs") || self.name.starts_with(&format!("{path}/"))
    }

    /// `src/web/head.rs` belongs to `web`.
    fn module(&self) -> &str {
        let path = self.name.strip_prefix("src/").unwrap_or(&self.name);
        path.split('/').next().unwrap().trim_end_matches(".rs")
    }

    /// Whether the code names this crate.
    fn names(&self, name: &str) -> bool {
        let path = format!("{name}::");
        self.code.match_indices(&path).any(|(at, _)| {
            let before = self.code[..at].chars().next_back();
            before.is_none_or(|c| !c.is_alphanumeric() && c != '_' && c != ':')
        }) || self.code.contains(&format!("use {name};"))
    }

    /// Modules of this crate that the code names.
    fn modules(&self) -> Vec<String> {
        let mut found = Vec::new();
        for (at, _) in self.code.match_indices("crate::") {
            let rest = &self.code[at + "crate::".len()..];
            let names: Vec<String> = if rest.starts_with('{') {
                braces(rest)
            } else {
                vec![word(rest)]
            };
            found.extend(names.into_iter().map(|name| match &*name {
                "Config" => "config".to_owned(),
                "Gateway" => "gateway".to_owned(),
                _ => name,
            }));
        }
        found
    }
}

/// The first word of each item between braces.
fn braces(text: &str) -> Vec<String> {
    let mut depth = 0;
    let mut items = Vec::new();
    let mut fresh = true;
    for (at, c) in text.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 1 => break,
            '}' => depth -= 1,
            ',' if depth == 1 => fresh = true,
            c if fresh && depth == 1 && !c.is_whitespace() => {
                fresh = false;
                items.push(word(&text[at..]));
            }
            _ => {}
        }
    }
    items
}

fn word(text: &str) -> String {
    text.chars()
        .take_while(|c| c.is_alphanumeric() || *c == '_')
        .collect()
}

fn place(module: &str) -> Option<usize> {
    ORDER.iter().position(|known| *known == module)
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn sources(folder: &str) -> Vec<Source> {
    let mut found = Vec::new();
    collect(&root().join(folder), &mut found);
    assert!(!found.is_empty(), "no source in {folder}");
    found
}

fn collect(folder: &Path, found: &mut Vec<Source>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(Source::read(&path));
        }
    }
}

/// Files and folders that only tests see.
const TESTS: [&str; 4] = ["/tests.rs", "/tests/", "/testing.rs", "/for_test.rs"];

/// Crates that are part of the language of the whole program.
const LANGUAGE: [&str; 12] = [
    "arc_swap",
    "bytes",
    "data_encoding",
    "futures_util",
    "http",
    "serde",
    "serde_json",
    "thiserror",
    "time",
    "tokio",
    "tokio_util",
    "tracing",
];

/// Who may name the other crates. `demo` is a company of its own and has its own servers,
/// `bench` devices and an origin.
const DOORS: &[(&str, &[&str])] = &[
    ("argon2", &["auth/users"]),
    ("async_trait", &["balance/strategy"]),
    // rustls calls its provider by the same name, wherever TLS is set up.
    (
        "aws_lc_rs",
        &[
            "bench/floor",
            "bench/load/wire",
            "crypto",
            "dial/tls",
            "tls",
        ],
    ),
    ("cedar_policy", &["policy"]),
    ("clap", &["cli"]),
    // HTTP/2 towards devices; towards backends it is hyper's.
    ("h2", &["web/http2"]),
    ("hickory_proto", &["demo/dns"]),
    ("hickory_resolver", &["dial/resolve"]),
    // Bodies: ours is `web::Body`; hyper's stay where hyper is.
    ("http_body", &["upstream", "web"]),
    (
        "http_body_util",
        &["admin", "balance/health", "bench/load/http2", "demo"],
    ),
    ("httpdate", &["tls", "web/date"]),
    (
        "hyper",
        &[
            "admin",
            "balance/health",
            "bench/load/http2",
            "demo",
            "shutdown",
            "upstream",
        ],
    ),
    (
        "hyper_util",
        &[
            "admin",
            "balance/health",
            "bench/load/http2",
            "demo",
            "upstream",
        ],
    ),
    ("ipnet", &["auth/lockout", "config", "dial"]),
    ("jsonwebtoken", &["session/token"]),
    ("ldap3", &["auth/ldap"]),
    ("miette", &["policy/load"]),
    ("nix", &["bench", "dial"]),
    ("pingora_core", &["balance/strategy"]),
    ("pingora_load_balancing", &["balance/strategy"]),
    ("prometheus_client", &["metrics"]),
    ("rcgen", &["bench/site", "demo"]),
    // TLS towards devices, towards backends, the demo's own, and that of the devices a bench plays.
    (
        "rustls",
        &[
            "bench/floor",
            "bench/load/wire",
            "bench/login",
            "bench/site",
            "config/resolve/external",
            "demo",
            "dial/tls",
            "tls",
        ],
    ),
    ("rustls_native_certs", &["dial/tls"]),
    ("schemars", &["config"]),
    ("socket2", &["dial/socket", "listener"]),
    ("strsim", &["config/problem"]),
    ("tokio_rustls", &["bench/load/wire", "demo", "dial", "tls"]),
    ("toml", &["bench/peer", "config/tree"]),
    ("tracing_subscriber", &["cli/run", "config/value"]),
    ("x509_parser", &["tls/certificates"]),
    (
        "zeroize",
        &[
            "cli/hash_password",
            "config",
            "tls/certificates/load",
            "web/login/identify",
        ],
    ),
];

/// The order of the journey, after what serves every stage: a module names those before it.
const ORDER: [&str; 27] = [
    "shutdown", "clock", "crypto", "refusal", "relay", "permit", "config", "dial", "auth",
    "listener", "tls", "web", "session", "policy", "route", "balance", "upstream", "tunnel",
    "metrics", "admin", "control", "gateway", "demo", "bench", "cli", "lib", "main",
];

/// The pages on which all stages are read.
const KNOW_ALL: [&str; 7] = [
    "gateway",
    "web/error",
    "web/journal",
    "web/login",
    "web/place",
    "web/service",
    "lib",
];

/// Where a later stage is named all the same, and why.
const BACKWARDS: &[(&str, &str, &str)] = &[
    (
        "auth",
        "metrics",
        "an operator counts the passwords that were checked",
    ),
    (
        "listener",
        "tls",
        "the accept loop runs the handshake in the connection's own task",
    ),
    (
        "permit",
        "policy",
        "a permit is made with the policy's seal, which nobody else can make",
    ),
    (
        "upstream",
        "metrics",
        "as for tunnels: an upgraded connection has a relay's counts",
    ),
    (
        "tunnel",
        "metrics",
        "a relay's counts are made here and read by the journal",
    ),
];

/// Bytes in, value out.
const BYTES_ONLY: &[&str] = &[
    "src/listener/proxy_header.rs",
    "src/upstream/head.rs",
    "src/web/chunked.rs",
    "src/web/head.rs",
    "src/web/head/response.rs",
    "src/web/path.rs",
];

/// Who opens sockets outwards without a permit, and why.
const OUTWARDS: &[(&str, &str)] = &[
    ("dial", "it is the way out"),
    ("demo", "a company of its own, on loopback"),
    ("bench", "it plays the devices, in a process of its own"),
    (
        "control",
        "a command asks a running gateway, over its UNIX socket",
    ),
];

/// Files with more lines of code (comments and tests left out) than [`LONGEST`], and why they stay whole.
const LONG: &[(&str, &str)] = &[
    (
        "src/auth.rs",
        "the chain of directories, and the one clock by which it answers",
    ),
    ("src/auth/ldap.rs", "bind, search, groups: one conversation"),
    (
        "src/config/file.rs",
        "data alone: the file as written, with its defaults",
    ),
    ("src/config/schema.rs", "one walk over the schema"),
    (
        "src/config/value.rs",
        "one small type for each kind of value",
    ),
    ("src/dial.rs", "every way out, and its errors"),
    (
        "src/session.rs",
        "the record and its store: neither means much without the other",
    ),
    (
        "src/upstream.rs",
        "one exchange: node, connection, answer, tries",
    ),
    ("src/web/http1.rs", "one state machine"),
    (
        "src/web/login.rs",
        "the gateway's own pages, one after another",
    ),
];

const LONGEST: usize = 450;
