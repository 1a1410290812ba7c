//! A new configuration comes into force without cutting what it does not touch.

use std::{fs, process::Output};

use ravelin::control::{Answer, Command};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

use crate::{
    load::echo,
    support::{
        DEADLINE,
        device::{Connection, Device, read_all, read_head},
        eventually,
        gateway::{ALICE, policy, ravelin},
        peers,
        world::World,
    },
};

#[tokio::test(flavor = "multi_thread")]
async fn a_good_configuration_is_in_force_for_the_next_request_of_an_open_connection() {
    let world = World::new();
    let device = Device::new(world.gateway.address, &world.authority(), &[]);
    let mut connection = device.connect("intranet.apps.test").await;
    let first = get(&mut connection, "/").await;
    assert!(first.ends_with("welcome to the intranet\n"), "{first}");

    policy(
        &world.site,
        "permit (principal, action, resource) unless { resource == App::\"intranet\" };",
    );
    add(
        &world,
        &format!(
            "[pool.payroll]\nnodes = [\"http://{}\"]\n[app.payroll]\nhost = \"intranet.apps.test\"\npath = \"/pay\"\npool = \"payroll\"\n",
            world.payroll.address
        ),
    );
    world.gateway.signal("HUP");
    eventually("the reload", || {
        (world
            .gateway
            .metric("ravelin_reloads_total{result=\"good\"}")?
            == 1.0)
            .then_some(())
    });

    let denied = get(&mut connection, "/").await;
    assert!(denied.starts_with("HTTP/1.1 403"), "{denied}");
    let new = get(&mut connection, "/pay").await;
    assert!(new.ends_with("salaries"), "{new}");
    let Answer::Status(status) = world.gateway.ask(&Command::Status) else {
        panic!("no status");
    };
    assert_eq!(status.generation, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_configuration_leaves_the_old_one_in_force_and_says_why() {
    let world = World::new();
    let device = Device::new(world.gateway.address, &world.authority(), &[]);
    let mut connection = device.connect("intranet.apps.test").await;
    get(&mut connection, "/").await;
    let good = fs::read_to_string(world.site.path("ravelin.toml")).unwrap();

    for (text, said) in [
        (
            good.replace("pool = \"intranet\"", "pol = \"intranet\""),
            "pool",
        ),
        (good.replace("gw.pem", "gone.pem"), "gone.pem"),
        (
            good.replace(
                "[listener.public]\naddresses = [\"127.0.0.1:0\"]",
                "[listener.public]\naddresses = [\"127.0.0.2:0\"]",
            ),
            "restart",
        ),
        ("not toml at all".into(), "ravelin.toml"),
    ] {
        world.site.write("ravelin.toml", &text);
        let told = reload(&world);
        assert_eq!(told.status.code(), Some(1), "{told:?}");
        let why = String::from_utf8_lossy(&told.stderr);
        assert!(why.contains(said), "{said} is not in: {why}");
    }
    world.site.write("ravelin.toml", &good);
    policy(
        &world.site,
        "permit (principal, action == Action::\"tunel\", resource);",
    );
    let told = reload(&world);
    assert!(!told.status.success(), "{told:?}");
    let why = String::from_utf8_lossy(&told.stderr);
    assert!(why.contains("test.cedar"), "{why}");
    world.gateway.signal("HUP");
    eventually("the refusal in the log", || {
        (world
            .gateway
            .metric("ravelin_reloads_total{result=\"bad\"}")?
            == 6.0)
            .then_some(())
    });
    eventually("the reason in the log", || {
        let log = world.gateway.diagnostics();
        (log.matches("the old configuration stays in force").count() == 6).then_some(())
    });

    let still = get(&mut connection, "/").await;
    assert!(still.ends_with("welcome to the intranet\n"), "{still}");
}

#[tokio::test(flavor = "multi_thread")]
async fn open_tunnels_that_the_new_policies_deny_are_ended_and_no_others() {
    let (kept, cut) = (echo().await, echo().await);
    let world = World::build(&[kept, cut], |_| String::new());
    let device = Device::new(world.gateway.address, &world.authority(), &[]);
    let credential = format!("alice:{ALICE}");
    let mut stays = device.tunnel(&kept.to_string(), &credential).await;
    let mut goes = device.tunnel(&cut.to_string(), &credential).await;
    bounce(&mut stays).await;
    bounce(&mut goes).await;

    let rules = fs::read_to_string(world.site.path("policies/test.cedar")).unwrap();
    policy(
        &world.site,
        &format!(
            "{rules}\n@id(\"not-any-more\") forbid (principal, action == Action::\"tunnel\", resource) when {{ resource.port == {} }};",
            cut.port()
        ),
    );
    assert!(reload(&world).status.success());

    ended(&mut goes).await;
    bounce(&mut stays).await;
    let line = world
        .gateway
        .log_line("the tunnel's end", |line| line["end"] == "denied");
    assert_eq!(line["target"], cut.to_string());
    assert_eq!(line["stage"], "policy");
    assert!(
        line["refusal"].as_str().unwrap().starts_with("R-"),
        "{line}"
    );
    assert!(
        line["reason"].as_str().unwrap().contains("not-any-more"),
        "{line}"
    );
    assert_eq!(line["down"], 4);

    // Back again: what was denied may be opened, what stayed was never touched.
    policy(&world.site, &rules);
    assert!(reload(&world).status.success());
    let mut again = device.tunnel(&cut.to_string(), &credential).await;
    bounce(&mut again).await;
    bounce(&mut stays).await;
    assert_eq!(ends(&world, "denied"), Some(1.0));
}

#[tokio::test(flavor = "multi_thread")]
async fn open_tunnels_end_when_their_address_is_not_inside_any_more() {
    let (kept, cut) = (echo().await, echo().await);
    let world = World::build(&[kept, cut], |_| String::new());
    let device = Device::new(world.gateway.address, &world.authority(), &[]);
    let credential = format!("alice:{ALICE}");
    let mut stays = device.tunnel(&kept.to_string(), &credential).await;
    let mut goes = device.tunnel(&cut.to_string(), &credential).await;

    change(&world, &format!(", \"{cut}\""), "");
    assert!(reload(&world).status.success());

    ended(&mut goes).await;
    bounce(&mut stays).await;
    let line = world
        .gateway
        .log_line("the tunnel's end", |line| line["end"] == "denied");
    assert_eq!(line["stage"], "dial", "{line}");
}

#[tokio::test(flavor = "multi_thread")]
async fn websockets_end_with_the_policy_that_allowed_them() {
    let node = websocket().await;
    let world = World::build(&[node], |_| {
        format!(
            "[pool.socket]\nnodes = [\"http://{node}\"]\n\
             [app.socket]\nhost = \"socket.apps.test\"\npool = \"socket\"\n\
             [app.open]\nhost = \"open.apps.test\"\npool = \"socket\"\nauthorization = \"backend\"\n"
        )
    });
    let rules = fs::read_to_string(world.site.path("policies/test.cedar")).unwrap();
    policy(
        &world.site,
        &format!(
            "{rules}\npermit (principal, action == Action::\"open\", resource == App::\"socket\");"
        ),
    );
    assert!(reload(&world).status.success());
    let device = Device::new(world.gateway.address, &world.authority(), &[]);
    let mut goes = upgrade(&device, "socket.apps.test").await;
    let mut stays = upgrade(&device, "open.apps.test").await;
    bounce(&mut goes).await;
    bounce(&mut stays).await;

    policy(&world.site, &rules);
    assert!(reload(&world).status.success());

    ended(&mut goes).await;
    bounce(&mut stays).await;
    let line = world
        .gateway
        .log_line("the websocket's end", |line| line["end"] == "denied");
    assert_eq!(line["app"], "socket");
    assert!(
        line["refusal"].as_str().unwrap().starts_with("R-"),
        "{line}"
    );
    // An app that is not there any more permits nothing.
    change(
        &world,
        "[app.open]\nhost = \"open.apps.test\"",
        "[app.opened]\nhost = \"opened.apps.test\"",
    );
    assert!(reload(&world).status.success());
    ended(&mut stays).await;
    eventually("the tunnels to be gone", || {
        (world.gateway.metric("ravelin_tunnels ")? == 0.0).then_some(())
    });
}

#[test]
fn pools_keep_what_they_know_of_health_and_devices() {
    let named = |name: &str| {
        peers::nginx(
            &format!(
                "location / {{ add_header Set-Cookie \"ACNODEID={name}\"; return 200 \"{name}\"; }}"
            ),
            None,
        )
    };
    let (red, blue, mut gone) = (named("red"), named("blue"), named("gone"));
    let world = World::build(&[red.address, blue.address, gone.address], |_| {
        format!(
            "[pool.xm]\nnodes = [\"http://{}\", \"http://{}\", \"http://{}\"]\n\
             check = {{ type = \"tcp\", interval = \"500ms\", timeout = \"400ms\", fall = 2, rise = 1 }}\n\
             persistence = {{ cookie = \"ACNODEID\", idle = \"1h\" }}\n\
             [app.xm]\nhost = \"xm.apps.test\"\npool = \"xm\"\nauthorization = \"backend\"\n",
            red.address, blue.address, gone.address
        )
    });
    let node = gone.address.to_string();
    gone.kill();
    eventually("the dead node to be out", || {
        (state(&world, &node) == "down").then_some(())
    });
    let url = world.url("xm.apps.test");
    let first = world.curl(&[&url]);
    let other = if first.body == "red" { "blue" } else { "red" };
    let again = (0..10).find_map(|_| {
        let got = world.curl(&[&url]);
        (got.body == other).then_some(got)
    });
    assert!(again.is_some(), "the pool never took its other node");

    add(&world, "[tunnel]\nidle = \"1h\"\n");
    assert!(matches!(
        world.gateway.ask(&Command::Reload),
        Answer::Reloaded
    ));

    assert_eq!(state(&world, &node), "down");
    for name in [first.body.as_str(), other] {
        let cookie = format!("ACNODEID={name}");
        for _ in 0..4 {
            assert_eq!(world.curl(&["--cookie", &cookie, &url]).body, name);
        }
    }
    // Probes go on after it.
    let back = TcpListenerAt::bind(&node);
    eventually("the node to be back", || {
        (state(&world, &node) == "up").then_some(())
    });
    drop(back);
}

/// A node's port, taken by somebody who accepts and says nothing.
struct TcpListenerAt(#[expect(dead_code, reason = "held, not used")] std::net::TcpListener);

impl TcpListenerAt {
    fn bind(address: &str) -> Self {
        Self(eventually("the dead node's port", || {
            std::net::TcpListener::bind(address).ok()
        }))
    }
}

fn state(world: &World, node: &str) -> String {
    let Answer::Pools(nodes) = world.gateway.ask(&Command::Pools) else {
        panic!("no pools");
    };
    let found = nodes.into_iter().find(|found| found.node == node);
    found.unwrap().state
}

/// `ravelin reload`, as an operator types it.
fn reload(world: &World) -> Output {
    ravelin()
        .args(["reload", "--control"])
        .arg(world.site.path("control.sock"))
        .output()
        .unwrap()
}

fn add(world: &World, toml: &str) {
    let old = fs::read_to_string(world.site.path("ravelin.toml")).unwrap();
    world.site.write("ravelin.toml", &(old + toml));
}

fn change(world: &World, from: &str, to: &str) {
    let old = fs::read_to_string(world.site.path("ravelin.toml")).unwrap();
    assert!(old.contains(from), "{from} is not in {old}");
    world.site.write("ravelin.toml", &old.replace(from, to));
}

fn ends(world: &World, end: &str) -> Option<f64> {
    world
        .gateway
        .metric(&format!("ravelin_tunnels_ended_total{{end=\"{end}\"}}"))
}

/// One request on an open connection, and its whole answer.
async fn get(connection: &mut Connection, path: &str) -> String {
    let basic = data_encoding::BASE64.encode(format!("alice:{ALICE}").as_bytes());
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: intranet.apps.test\r\nAuthorization: Basic {basic}\r\n\r\n"
    );
    connection.write_all(request.as_bytes()).await.unwrap();
    let head = read_head(connection).await;
    let length = head.lines().find_map(|line| {
        line.to_lowercase()
            .strip_prefix("content-length:")?
            .trim()
            .parse()
            .ok()
    });
    let mut body = vec![0; length.unwrap_or(0)];
    connection.read_exact(&mut body).await.unwrap();
    head + &String::from_utf8(body).unwrap()
}

async fn upgrade(device: &Device, host: &'static str) -> Connection {
    let mut connection = device.connect(host).await;
    let basic = data_encoding::BASE64.encode(format!("alice:{ALICE}").as_bytes());
    let request = format!(
        "GET / HTTP/1.1\r\nHost: {host}\r\nAuthorization: Basic {basic}\r\nConnection: Upgrade\r\n\
         Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    );
    connection.write_all(request.as_bytes()).await.unwrap();
    let head = read_head(&mut connection).await;
    assert!(head.starts_with("HTTP/1.1 101"), "{head}");
    connection
}

/// A node that opens every WebSocket and gives back the bytes.
async fn websocket() -> std::net::SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    head.push(stream.read_u8().await?);
                }
                let answer = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n\
                    Upgrade: websocket\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
                stream.write_all(answer).await?;
                let (mut read, mut write) = stream.split();
                tokio::io::copy(&mut read, &mut write).await
            });
        }
    });
    address
}

/// Sends four bytes and waits until they are back.
pub(crate) async fn bounce(tunnel: &mut Connection) {
    tunnel.write_all(b"ping").await.unwrap();
    let mut back = [0; 4];
    let read = tokio::time::timeout(DEADLINE, tunnel.read_exact(&mut back));
    read.await.expect("an answer in time").unwrap();
    assert_eq!(&back, b"ping");
}

/// Waits until the gateway has ended a tunnel.
async fn ended(tunnel: &mut Connection) {
    assert!(read_all(tunnel).await.is_empty());
}
