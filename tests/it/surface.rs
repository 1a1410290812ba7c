//! What answers without a session: the table that `ravelin check` prints, and nothing else.

use std::collections::BTreeSet;

use tokio::io::AsyncWriteExt;

use crate::support::{
    device::{Device, read_head},
    gateway::ravelin,
    world::World,
};

/// An app whose backend has its own login, beside the intranet, whose login is ours.
const MAIL: &str = "[app.mail]\nhost = \"store.apps.test\"\npath = \"/mail\"\n\
                    pool = \"intranet\"\nauthorization = \"backend\"\n";

#[test]
fn what_check_prints_as_reached_without_a_login_is_the_golden_table() {
    let directory = tempfile::tempdir().unwrap();
    let config = directory.path().join("ravelin.toml");
    let example = include_str!("../../examples/ravelin.toml");
    std::fs::write(&config, example).unwrap();

    let output = ravelin()
        .args(["check", "--no-files", "-c"])
        .arg(&config)
        .output()
        .unwrap();

    assert!(output.status.success(), "{output:?}");
    let page = String::from_utf8(output.stdout).unwrap();
    let table = table(&page);
    assert_eq!(
        table,
        include_str!("../data/pre-auth.txt"),
        "the pre-auth surface changed; if that is wanted, so is this file:\n{table}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_walk_without_credentials_finds_only_what_the_table_lists() {
    let world = World::with(MAIL);
    let rows = rows(&world);
    let device = Device::new(world.gateway.address, &world.authority(), &[]);
    let mut answered = BTreeSet::new();

    for host in ["gw.ravelin.test", "intranet.apps.test", "store.apps.test"] {
        for method in METHODS {
            for path in PATHS {
                let (status, location) = ask(&device, method, host, path).await;
                let found = rows.iter().find(|row| row.has(method, host, path));
                let request = format!("{method} https://{host}{path}");
                let login = location.as_deref().is_some_and(is_login);
                let refused = matches!(status, 400 | 401 | 403 | 404 | 405 | 421 | 501);
                assert!(status != 500, "{request} broke the gateway");
                if let Some(row) = found {
                    // A row of the table is there for something.
                    let there = !row.own || !matches!(status, 404 | 405 | 421);
                    assert!(there, "{request} is in the table, and answered {status}");
                    answered.insert(row.place.clone());
                    let may_answer = row.own || host == "store.apps.test";
                    assert!(may_answer || refused || login, "{request}: {status}");
                } else {
                    assert!(refused, "{request} is not in the table: {status}");
                }
            }
        }
    }

    let listed: BTreeSet<String> = rows.into_iter().map(|row| row.place).collect();
    assert_eq!(answered, listed, "every row is walked");
}

#[tokio::test(flavor = "multi_thread")]
async fn tunnels_and_plain_sites_ask_for_a_credential_whatever_the_target_is() {
    let world = World::with(MAIL);
    let device = Device::new(world.gateway.address, &world.authority(), &[]);
    let (inside, port) = ("intranet.corp.test", world.intranet.address.port());

    for target in [
        format!("{inside}:{port}"),
        format!("{inside}:22"),
        "127.0.0.1:22".to_owned(),
        "169.254.169.254:80".to_owned(),
        "no-such-name.invalid:443".to_owned(),
        "gw.ravelin.test:443".to_owned(),
    ] {
        for line in [format!("CONNECT {target}"), format!("GET http://{target}/")] {
            let mut connection = device.connect("gw.ravelin.test").await;
            let request = format!("{line} HTTP/1.1\r\nHost: {target}\r\n\r\n");
            connection.write_all(request.as_bytes()).await.unwrap();

            let head = read_head(&mut connection).await;

            assert!(head.starts_with("HTTP/1.1 407 "), "{line}: {head}");
        }
    }
    for line in ["CONNECT", "CONNECT /login", "CONNECT gw.ravelin.test"] {
        let mut connection = device.connect("gw.ravelin.test").await;
        let request = format!("{line} HTTP/1.1\r\nHost: gw.ravelin.test\r\n\r\n");
        connection.write_all(request.as_bytes()).await.unwrap();

        let head = read_head(&mut connection).await;

        assert!(head.starts_with("HTTP/1.1 400 "), "{line}: {head}");
    }
}

/// One request without any credential: its status, and where it leads to.
async fn ask(
    device: &Device,
    method: &str,
    host: &'static str,
    path: &str,
) -> (u16, Option<String>) {
    let mut connection = device.connect(host).await;
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: {host}\r\nAccept: text/html\r\nContent-Length: 0\r\n\r\n"
    );
    connection.write_all(request.as_bytes()).await.unwrap();
    let head = read_head(&mut connection).await;
    let status = head
        .split(' ')
        .nth(1)
        .and_then(|status| status.parse().ok())
        .unwrap_or_else(|| panic!("{method} {host}{path}: {head}"));
    let location = head
        .lines()
        .find_map(|line| line.strip_prefix("location: "))
        .map(str::to_owned);
    (status, location)
}

fn is_login(location: &str) -> bool {
    location == "/login" || location.contains("/.ravelin/authorize?ask=")
}

/// One row of the table, as the walk needs it.
struct Row {
    methods: Vec<String>,
    host: String,
    path: String,
    place: String,
    own: bool,
}

impl Row {
    fn has(&self, method: &str, host: &str, path: &str) -> bool {
        let methods = self.methods.iter().any(|m| m == method || m == "*");
        let path = path.split('?').next().unwrap();
        let path = match self.path.strip_suffix("/*") {
            Some(parent) => path == parent || path.starts_with(&format!("{parent}/")),
            None => path == self.path,
        };
        methods && self.host == host && path
    }
}

/// The table of this gateway, as `ravelin check` prints it, without what a proxy is asked.
fn rows(world: &World) -> Vec<Row> {
    let output = ravelin()
        .args(["check", "-c"])
        .arg(world.site.path("ravelin.toml"))
        .output()
        .unwrap();
    let page = String::from_utf8(output.stdout).unwrap();
    let table = table(&page);
    let rows: Vec<Row> = table
        .lines()
        .filter_map(|line| {
            let (methods, rest) = line.split_once("https://")?;
            let (host, path) = rest.split_once('/')?;
            Some(Row {
                methods: methods.split_whitespace().map(str::to_owned).collect(),
                host: host.to_owned(),
                path: format!("/{path}"),
                place: format!("{} https://{rest}", methods.trim()),
                own: host == "gw.ravelin.test" || path == ".ravelin/enter",
            })
        })
        .collect();
    assert!(rows.len() > 8, "{page}");
    // An entrance and what is below an app's path: the narrower row is the one that counts.
    let (mut wide, mut narrow): (Vec<Row>, Vec<Row>) =
        rows.into_iter().partition(|row| row.path.ends_with('*'));
    narrow.append(&mut wide);
    narrow
}

fn table(page: &str) -> String {
    let (_, rest) = page.split_once("Reached without a login\n").unwrap();
    let (table, _) = rest.split_once("\n\n").unwrap();
    format!("{table}\n")
}

const METHODS: [&str; 8] = [
    "GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "PROPFIND",
];

/// What the gateway has, what it must not have, and ways around.
const PATHS: [&str; 24] = [
    "/",
    "/login",
    "/login?ask=x",
    "/login/",
    "/Login",
    "/logout",
    "/token",
    "/token/revoke",
    "/token/x",
    "/.ravelin/authorize",
    "/.ravelin/authorize?ask=x",
    "/.ravelin/enter",
    "/.ravelin/enter?code=x",
    "/.ravelin/",
    "/.ravelin/x",
    "/metrics",
    "/healthz",
    "/readyz",
    "/sessions",
    "/mail",
    "/mail/x",
    "/mail/../login",
    "/scripts/ctxsta.dll",
    "/favicon.ico",
];
