//! Whole configurations: what is accepted, what is refused and with which words.

use std::{
    fs,
    net::IpAddr,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    time::Duration,
};

use proptest::prelude::*;
use tempfile::TempDir;

use super::*;

fn data(kind: &str) -> Vec<(PathBuf, String)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/data/config")
        .join(kind);
    let mut files: Vec<PathBuf> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|e| e == "toml"))
        .collect();
    files.sort();
    files
        .into_iter()
        .map(|path| {
            let text = fs::read_to_string(&path).unwrap();
            (path, text)
        })
        .collect()
}

fn parse(text: &str) -> Result<Config, Problems> {
    Config::parse(text, Path::new("ravelin.toml"), Files::Unchecked)
}

/// The text beside each file is the exact refusal. `RAVELIN_WRITE=1` writes it anew, to be read.
#[test]
fn every_invalid_file_is_refused_with_these_words() {
    for (path, text) in data("invalid") {
        let name = Path::new(path.file_name().unwrap());
        let refused = Config::parse(&text, name, Files::Unchecked).unwrap_err();
        let words = format!("{refused}\n");
        let expected = path.with_extension("txt");
        if std::env::var_os("RAVELIN_WRITE").is_some() {
            fs::write(&expected, &words).unwrap();
        }
        let expected = fs::read_to_string(expected).unwrap_or_default();
        assert_eq!(words, expected, "{}", path.display());

        let shown = format!("{refused:?}");
        assert!(!shown.contains("hunter2"), "{}: {shown}", path.display());
    }
}

#[test]
fn every_valid_file_is_accepted() {
    for (path, text) in data("valid") {
        if let Err(problems) = parse(&text) {
            panic!("{}:\n{problems}", path.display());
        }
    }
}

#[test]
fn the_examples_are_accepted() {
    for name in ["ravelin.toml", "xenmobile-storefront-ad.toml"] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("examples")
            .join(name);
        let config = Config::load_with(&path, Files::Unchecked)
            .unwrap_or_else(|problems| panic!("{problems}"));
        assert_eq!(config.warnings.to_string(), "");
    }
}

#[test]
fn the_example_says_what_it_means() {
    let config = parse(include_str!("../../examples/ravelin.toml")).unwrap();

    let hosts: Vec<&str> = config.apps.iter().map(|app| &*app.host).collect();
    assert_eq!(
        hosts,
        ["apps.example.com", "intranet.example.com", "xm.example.com"]
    );
    let pool = config.pools.get("xenmobile").unwrap();
    let first = pool.nodes.first().unwrap();
    assert_eq!(first.what().as_ref(), "pool xenmobile");
    assert_eq!(first.port(), 8443);
    assert_eq!(
        pool.tls.as_ref().unwrap().name.as_deref(),
        Some("xm.example.com")
    );
    assert_eq!(pool.source, config.network.source);
    assert_eq!(pool.check.interval, Duration::from_secs(10));
    assert_eq!(
        config.tunnel.idle_by_port.get(&993),
        Some(&Duration::from_secs(35 * 60))
    );
    let DirectoryKind::Ldap(ldap) = &config.directories.first().unwrap().kind else {
        panic!("the example has an LDAP directory");
    };
    let security: Vec<LdapSecurity> = ldap.servers.iter().map(|s| s.security).collect();
    assert_eq!(security, [LdapSecurity::Tls, LdapSecurity::StartTls]);
}

#[test]
fn what_is_left_out_has_the_defaults_that_the_example_shows() {
    let smallest = parse(include_str!("../../tests/data/config/valid/smallest.toml")).unwrap();
    let example = parse(include_str!("../../examples/ravelin.toml")).unwrap();

    assert_eq!(
        format!("{:?}{:?}", smallest.limits, smallest.tls),
        format!("{:?}{:?}", example.limits, example.tls)
    );
    assert_eq!(
        smallest.network.connect_timeout,
        example.network.connect_timeout
    );
    assert_eq!(smallest.network.kept_idle, example.network.kept_idle);
    assert_eq!(
        smallest.login.session_absolute,
        example.login.session_absolute
    );
    assert_eq!(smallest.tunnel.block, example.tunnel.block);
    assert!(smallest.listeners.iter().all(|listener| listener.tunnels));
}

#[test]
fn source_addresses_are_handed_down() {
    let text = BASE.to_owned()
        + r#"
[pool.a]
nodes = ["http://10.0.0.7"]
[pool.b]
nodes = ["http://10.0.0.8"]
source = ["10.1.0.9"]
[dns.zone."x.test"]
servers = ["10.0.0.53"]
"#;
    let config = parse(&text.replace("[network]", "[network]\nsource = [\"10.1.0.5\"]")).unwrap();

    let global: IpAddr = "10.1.0.5".parse().unwrap();
    let own: IpAddr = "10.1.0.9".parse().unwrap();
    let pool = |name| config.pools.get(name).unwrap();
    assert_eq!(&*pool("a").nodes[0].source().0, [global]);
    assert_eq!(&*pool("b").nodes[0].source().0, [own]);
    assert_eq!(&*config.dns.zones[0].source.0, [global]);
}

#[test]
fn warnings_are_no_problems() {
    let text = BASE.to_owned()
        + r#"
[pool.a]
nodes = ["http://10.0.0.7"]
[app.a]
host = "a.example.com"
path = "/a"
pool = "a"
[app.b]
host = "a.example.com"
path = "/a/longer"
pool = "a"
"#;
    let config = parse(&text).unwrap();

    assert_eq!(
        config.warnings.to_string(),
        "ravelin.toml:1:1: directory: is missing: nobody can log in\n\
         ravelin.toml:21:8: app.b.host: shares the host of app.a: in a browser they are one \
         origin, trust them alike"
    );
    assert_eq!(
        &*config.apps[0].name, "b",
        "the longest prefix is asked first"
    );
}

/// A folder with every file that [`BASE`] names.
fn site() -> TempDir {
    let site = TempDir::new().unwrap();
    write(&site, "gw.pem", &certificate("gw.example.com"), 0o644);
    write(&site, "gw.key", "key", 0o600);
    fs::create_dir(site.path().join("policies")).unwrap();
    write(&site, "policies/b.cedar", "", 0o644);
    write(&site, "policies/a.cedar", "", 0o644);
    write(&site, "ravelin.toml", BASE, 0o644);
    site
}

fn write(site: &TempDir, name: &str, text: &str, mode: u32) {
    let path = site.path().join(name);
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
}

fn certificate(name: &str) -> String {
    let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
    params
        .distinguished_name
        .push(rcgen::DnType::CommonName, name);
    let key = rcgen::KeyPair::generate().unwrap();
    params.self_signed(&key).unwrap().pem()
}

fn load(site: &TempDir) -> Result<Config, String> {
    Config::load(&site.path().join("ravelin.toml")).map_err(|problems| {
        problems
            .to_string()
            .replace(&format!("{}/", site.path().display()), "")
    })
}

/// The one problem of a site whose file is `BASE` and `more`.
fn refusal(site: &TempDir, more: &str) -> String {
    write(site, "ravelin.toml", &format!("{BASE}{more}"), 0o644);
    load(site).unwrap_err()
}

#[test]
fn a_whole_site_loads() {
    let site = site();
    let config = load(&site).unwrap();

    let names: Vec<_> = config
        .policy
        .files
        .iter()
        .map(|path| path.strip_prefix(site.path()).unwrap().to_owned())
        .collect();
    assert_eq!(
        names,
        [Path::new("policies/a.cedar"), Path::new("policies/b.cedar")]
    );
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let site = site();
    fs::remove_file(site.path().join("gw.pem")).unwrap();
    fs::remove_dir_all(site.path().join("policies")).unwrap();

    assert_eq!(
        load(&site).unwrap_err(),
        "ravelin.toml:7:9: certificate.gw.chain: gw.pem does not exist\n\
         ravelin.toml:12:10: policy.files[0]: no file matches policies/*.cedar"
    );
    let nowhere = Config::load(Path::new("/nowhere/ravelin.toml")).unwrap_err();
    assert_eq!(
        nowhere.to_string(),
        "/nowhere/ravelin.toml: cannot be read: No such file or directory (os error 2)"
    );
}

#[test]
fn a_certificate_file_without_a_certificate_is_refused() {
    let site = site();
    write(&site, "gw.pem", "no PEM at all", 0o644);

    assert_eq!(
        load(&site).unwrap_err(),
        "ravelin.toml:7:9: certificate.gw.chain: gw.pem holds no certificate (PEM)"
    );
}

#[test]
fn a_key_that_everybody_can_read_is_refused() {
    let site = site();
    write(&site, "gw.key", "key", 0o644);

    assert_eq!(
        load(&site).unwrap_err(),
        "ravelin.toml:8:7: certificate.gw.key: gw.key is open to every user: chmod o= it"
    );
}

#[test]
fn a_secret_loses_its_final_newline_and_nothing_else() {
    let site = site();
    write(&site, "ldap", "hunter2 \r\n", 0o640);
    write(&site, "ravelin.toml", &format!("{BASE}{LDAP}"), 0o644);
    let config = load(&site).unwrap();

    let DirectoryKind::Ldap(ldap) = &config.directories[0].kind else {
        panic!("an LDAP directory was written");
    };
    assert_eq!(ldap.bind_password.expose(), b"hunter2 ");
    assert!(!format!("{config:?}").contains("hunter2"));
}

#[test]
fn a_secret_must_be_there_and_closed() {
    let site = site();
    let key = "ravelin.toml:17:17: directory.corp.bind_password:";

    assert_eq!(refusal(&site, LDAP), format!("{key} ldap does not exist"));
    write(&site, "ldap", "\n", 0o600);
    assert_eq!(refusal(&site, LDAP), format!("{key} names an empty secret"));
    write(&site, "ldap", "hunter2", 0o604);
    assert_eq!(
        refusal(&site, LDAP),
        format!("{key} ldap is open to every user: chmod o= it")
    );
    write(&site, "ldap", "hunter2\0", 0o600);
    assert_eq!(
        refusal(&site, LDAP),
        format!("{key} names a secret that is no text")
    );
    let environment = LDAP.replace("file:ldap", "env:RAVELIN_TEST_NOT_SET");
    assert_eq!(
        refusal(&site, &environment),
        format!("{key} there is no variable RAVELIN_TEST_NOT_SET in the environment")
    );
}

#[test]
fn a_short_shared_key_is_refused() {
    let site = site();
    write(&site, "shared", "too short", 0o600);
    let text = BASE.replace("[network]", "[network]\n") + "";
    write(
        &site,
        "ravelin.toml",
        &format!("shared_key = \"file:shared\"\n{text}"),
        0o644,
    );

    assert_eq!(
        load(&site).unwrap_err(),
        "ravelin.toml:1:14: shared_key: has fewer than 32 bytes"
    );
}

#[test]
fn what_belongs_to_a_demo_is_refused_elsewhere() {
    let site = site();
    write(&site, "gw.pem", &certificate(DEMO_CA), 0o644);
    let refused = "ravelin.toml:7:9: certificate.gw.chain: is the demo's: anybody could have made \
                   its key";
    assert_eq!(load(&site).unwrap_err(), refused);

    write(&site, "gw.pem", &certificate("gw.example.com"), 0o644);
    write(&site, "demo.json", "{}", 0o600);
    write(&site, "users", "", 0o600);
    let users = "[directory.people]\ntype = \"users\"\nfile = \"users\"\n";
    assert_eq!(
        refusal(&site, users),
        format!(
            "{refused}\nravelin.toml:15:8: directory.people.file: belongs to a demo: its passwords \
             are on paper somewhere"
        )
    );
}

#[test]
fn more_files_add_tables() {
    let site = site();
    fs::create_dir(site.path().join("conf.d")).unwrap();
    write(&site, "conf.d/20-app.toml", APP, 0o644);
    write(&site, "conf.d/10-pool.toml", POOL, 0o644);
    write(&site, "conf.d/.hidden.toml", "broken", 0o644);
    write(&site, "conf.d/notes.txt", "broken", 0o644);
    let config = load(&site).unwrap();

    assert_eq!(&*config.apps[0].pool.name, "a");
    assert_eq!(&*config.dns.zones[0].suffix, "branch.example.com");
    let problem = config.problem("pool.a.nodes[0]", "is down");
    assert!(
        problem
            .to_string()
            .ends_with("conf.d/10-pool.toml:2:10: pool.a.nodes[0]: is down"),
        "{problem}"
    );
}

#[test]
fn the_same_table_in_two_files_names_both() {
    let site = site();
    fs::create_dir(site.path().join("conf.d")).unwrap();
    write(&site, "conf.d/1.toml", POOL, 0o644);
    write(
        &site,
        "conf.d/2.toml",
        "host = \"other\"\n[pool.a]\nstrategy = \"round-robin\"\n[network]\nallow = []\n",
        0o644,
    );

    assert_eq!(
        load(&site).unwrap_err(),
        "conf.d/2.toml:1:1: host: stands in two files: the first is ravelin.toml:1\n\
         conf.d/2.toml:2:7: pool.a: stands in two files: the first is conf.d/1.toml:1\n\
         conf.d/2.toml:4:2: network: stands in two files: the first is ravelin.toml:9"
    );
}

#[test]
fn paths_are_relative_to_the_file_that_names_them() {
    let site = site();
    fs::create_dir(site.path().join("conf.d")).unwrap();
    let secure = POOL.replace("http://10.0.0.7", "https://10.0.0.7") + "";
    let secure = secure.replace("[dns", "ca = \"ca.pem\"\n[dns");
    write(&site, "conf.d/1.toml", &secure, 0o644);
    write(&site, "conf.d/ca.pem", &certificate("ca"), 0o644);
    let config = load(&site).unwrap();

    let tls = config.pools.get("a").unwrap().tls.as_ref().unwrap();
    let Authorities::File(path) = &tls.authorities else {
        panic!("a file was written");
    };
    assert_eq!(*path, site.path().join("conf.d/ca.pem"));
}

#[test]
fn a_million_brackets_are_refused_and_not_followed() {
    let deep = [
        "a = ".to_owned() + &"[".repeat(1 << 20),
        "a = ".to_owned() + &"{a=".repeat(1 << 18),
        "a".to_owned() + &".a".repeat(1 << 19) + " = 1",
        "[a".to_owned() + &".a".repeat(1 << 19) + "]",
        "[[a]]\n".repeat(1 << 16),
        // As deep as the syntax allows: dotted keys in inline tables.
        ("x".to_owned() + &".x".repeat(70) + " = {").repeat(70) + "y = 1" + &"}".repeat(70),
        ("x".to_owned() + &".x".repeat(8) + " = {").repeat(79) + "y = 1" + &"}".repeat(79),
    ];
    for text in deep {
        let problems = parse(&text).unwrap_err();
        assert!(!problems.is_empty());
    }
}

#[test]
fn every_key_of_the_schema_is_in_the_reference() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/configuration.md");
    if std::env::var_os("RAVELIN_WRITE").is_some() {
        fs::write(&path, reference()).unwrap();
    }
    assert_eq!(
        fs::read_to_string(path).unwrap(),
        reference(),
        "`ravelin check --reference > docs/configuration.md` writes it anew"
    );
}

#[test]
fn the_schema_says_which_json_schema_it_is() {
    let schema = schema();

    assert_eq!(
        schema.get("$schema").unwrap(),
        "https://json-schema.org/draft/2020-12/schema"
    );
    assert!(!schema.to_string().contains("\"null\""));
    assert_eq!(
        schema.pointer("/properties/pool/additionalProperties/required"),
        Some(&serde_json::json!(["nodes"]))
    );
}

proptest! {
    #[test]
    fn no_text_panics(text in ".{0,200}") {
        drop(parse(&text));
    }

    #[test]
    fn no_change_of_a_good_text_panics(
        at in 0..8000_usize,
        length in 0..40_usize,
        with in "[\\[\\]{}=\".\\n#a-z0-9-]{0,12}",
    ) {
        let mut text = include_str!("../../examples/ravelin.toml").to_owned();
        let start = text.floor_char_boundary(at.min(text.len()));
        let end = text.floor_char_boundary((start + length).min(text.len()));
        text.replace_range(start..end, &with);
        drop(parse(&text));
    }

    #[test]
    fn no_value_panics(
        format in "(address|ca|duration|size|network|node-url|ldap-url|pin|path-prefix|secret)",
        text in "\\PC{0,40}",
    ) {
        drop(value::check(&format, &text));
    }
}

const BASE: &str = r#"host = "gw.example.com"
[listener.public]
addresses = ["0.0.0.0:443"]
certificates = ["gw"]

[certificate.gw]
chain = "gw.pem"
key = "file:gw.key"
[network]
inside = ["10.0.0.0/8"]
[policy]
files = ["policies/*.cedar"]
"#;

const LDAP: &str = r#"[directory.corp]
type = "ldap"
servers = ["ldaps://10.0.0.9"]
bind_dn = "cn=ravelin,dc=corp"
bind_password = "file:ldap"
user_base = "dc=corp"
"#;

const POOL: &str = r#"[pool.a]
nodes = ["http://10.0.0.7"]
[dns.zone."branch.example.com"]
servers = ["10.0.0.53"]
"#;

const APP: &str = r#"[app.a]
host = "a.example.com"
pool = "a"
"#;
