//! The end of a gateway, its logs and its numbers: what an operator relies on.

use std::{
    fs,
    io::{Read, Write},
    net::TcpStream,
    os::unix::fs::symlink,
    time::{Duration, Instant},
};

use ravelin::control::{Answer, Command};
use tokio::{io::AsyncWriteExt, task::JoinSet};

use crate::{
    load::echo,
    reload::bounce,
    support::{
        DEADLINE,
        client::get,
        device::{Device, read_all, read_head},
        eventually,
        gateway::{ALICE, Site, policy, ravelin},
        world::World,
    },
};

#[tokio::test(flavor = "multi_thread")]
async fn a_tunnel_goes_on_until_the_drain_is_over_and_operators_see_it() {
    let echo = echo().await;
    let mut world = World::build(&[echo], |_| "[limits]\ndrain = \"15s\"\n".into());
    let device = Device::new(world.gateway.address, &world.authority(), &[]);
    let mut tunnel = device
        .tunnel(&echo.to_string(), &format!("alice:{ALICE}"))
        .await;
    let mut idle = device.connect("intranet.apps.test").await;
    bounce(&mut tunnel).await;
    assert!(get(world.gateway.admin, "/readyz").starts_with("HTTP/1.1 200"));

    let began = Instant::now();
    world.gateway.signal("TERM");
    eventually("/readyz to say that it drains", || {
        get(world.gateway.admin, "/readyz")
            .starts_with("HTTP/1.1 503")
            .then_some(())
    });
    assert!(get(world.gateway.admin, "/healthz").starts_with("HTTP/1.1 200"));
    eventually("new connections to be refused", || {
        TcpStream::connect(world.gateway.address).err()
    });
    // Both were accepted before: the one has nothing to do and is closed, the other goes on.
    assert!(read_all(&mut idle).await.is_empty());
    bounce(&mut tunnel).await;
    let Answer::Status(status) = world.gateway.ask(&Command::Status) else {
        panic!("no status");
    };
    assert!(status.draining && status.tunnels == 1, "{status:?}");
    let Answer::Error(why) = world.gateway.ask(&Command::Reload) else {
        panic!("a gateway that drains took a new configuration");
    };
    assert!(why.contains("draining"), "{why}");

    assert!(read_all(&mut tunnel).await.is_empty());
    assert!(
        began.elapsed() >= Duration::from_secs(15),
        "the tunnel was cut early"
    );
    assert!(world.gateway.wait().success());
    let line = world
        .gateway
        .log_line("the tunnel's end", |line| line["kind"] == "tunnel");
    assert_eq!(
        (line["end"].as_str(), line["down"].as_u64()),
        (Some("stopped"), Some(8))
    );
    assert!(!world.site.path("control.sock").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_signal_ends_the_gateway_at_once() {
    let echo = echo().await;
    let mut world = World::build(&[echo], |_| "[limits]\ndrain = \"1h\"\n".into());
    let device = Device::new(world.gateway.address, &world.authority(), &[]);
    let mut tunnel = device
        .tunnel(&echo.to_string(), &format!("alice:{ALICE}"))
        .await;
    bounce(&mut tunnel).await;

    world.gateway.signal("TERM");
    eventually("the drain", || {
        get(world.gateway.admin, "/readyz")
            .starts_with("HTTP/1.1 503")
            .then_some(())
    });
    bounce(&mut tunnel).await;
    world.gateway.signal("INT");

    assert_eq!(world.gateway.wait().code(), Some(1));
    assert!(read_all(&mut tunnel).await.is_empty());
}

#[test]
fn who_only_watches_does_not_hold_the_drain() {
    let mut world = World::with("[limits]\ndrain = \"1h\"\n");
    let mut scraper = TcpStream::connect(world.gateway.admin).unwrap();
    write!(
        scraper,
        "GET /metrics HTTP/1.1\r\nHost: {}\r\n\r\n",
        world.gateway.admin
    )
    .unwrap();
    let mut first = [0; 12];
    scraper.read_exact(&mut first).unwrap();
    assert_eq!(&first, b"HTTP/1.1 200");

    world.gateway.signal("TERM");

    assert!(world.gateway.wait().success());
}

#[test]
fn a_full_disk_loses_lines_that_are_counted_and_nothing_else() {
    let world = World::build(&[], |site| {
        symlink("/dev/full", site.path("access.log")).unwrap();
        String::new()
    });
    let credential = format!("alice:{ALICE}");
    let url = world.url("intranet.apps.test");

    for _ in 0..3 {
        assert_eq!(world.curl(&["--user", &credential, &url]).status, 200);
    }

    eventually("the lost lines to be counted", || {
        (world.gateway.metric("ravelin_log_lines_lost ")? == 3.0).then_some(())
    });
    assert!(
        world
            .gateway
            .diagnostics()
            .contains("the access log cannot be written")
    );
    assert_eq!(world.curl(&["--user", &credential, &url]).status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_line_is_lost_when_the_log_is_moved_away_under_load() {
    let world = World::new();
    let device = Device::new(world.gateway.address, &world.authority(), &[]);
    let basic = data_encoding::BASE64.encode(format!("alice:{ALICE}").as_bytes());
    let mut asking = JoinSet::new();
    for who in 0..WHO {
        let (device, basic) = (device.clone(), basic.clone());
        asking.spawn(async move {
            let mut connection = device.connect("intranet.apps.test").await;
            for number in 0..EACH {
                let request = format!(
                    "HEAD /{who}-{number} HTTP/1.1\r\nHost: intranet.apps.test\r\nAuthorization: Basic {basic}\r\n\r\n"
                );
                connection.write_all(request.as_bytes()).await.unwrap();
                let head = read_head(&mut connection).await;
                assert!(head.starts_with("HTTP/1.1 200"), "{head}");
            }
        });
    }
    let log = world.site.path("access.log");
    let aside: Vec<_> = (0..5)
        .map(|n| world.site.path(&format!("access.log.{n}")))
        .collect();
    for aside in &aside {
        eventually("lines in the log", || {
            (fs::metadata(&log).ok()?.len() > 0).then_some(())
        });
        fs::rename(&log, aside).unwrap();
        world.gateway.signal("HUP");
        eventually("the log to be opened again", || log.exists().then_some(()));
    }
    asking.join_all().await;

    let lines = || -> Vec<String> {
        let files = aside.iter().chain([&log]);
        let text: String = files
            .map(|file| fs::read_to_string(file).unwrap())
            .collect();
        text.lines().map(String::from).collect()
    };
    eventually("all lines", || (lines().len() >= WHO * EACH).then_some(()));
    let mut paths: Vec<String> = lines()
        .iter()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["path"].to_string())
        .collect();
    paths.sort();
    paths.dedup();
    assert_eq!(paths.len(), WHO * EACH);
}

#[test]
fn a_log_that_cannot_be_opened_is_told_at_the_start() {
    let site = Site::new();
    policy(&site, "permit (principal, action, resource);");
    fs::create_dir(site.path("folder")).unwrap();
    for (path, said) in [
        ("no/such/access.log", "log.access"),
        ("folder", "opening the access log: Is a directory"),
    ] {
        let toml = site
            .base()
            .replace("file:access.log", &format!("file:{path}"))
            + "\n[network]\ninside = [\"10.0.0.0/8\"]\n[dns]\nservers = [\"127.0.0.1:53\"]\n";
        let config = site.write("ravelin.toml", &toml);

        let output = ravelin().arg("run").arg("-c").arg(config).output().unwrap();

        assert!(!output.status.success());
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(told.contains(said), "{path}: {told}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_device_chooses_a_label_and_every_gauge_comes_back_to_zero() {
    let echo = echo().await;
    let world = World::build(&[echo], |_| String::new());
    let device = Device::new(world.gateway.address, &world.authority(), &[]);
    let credential = format!("alice:{ALICE}");
    let basic = data_encoding::BASE64.encode(credential.as_bytes());
    let mut busy = JoinSet::new();
    for number in 0..30 {
        let (device, credential, basic) = (device.clone(), credential.clone(), basic.clone());
        busy.spawn(async move {
            let mut tunnel = device.tunnel(&echo.to_string(), &credential).await;
            bounce(&mut tunnel).await;
            let mut connection = device.connect("intranet.apps.test").await;
            let (method, host) = match number % 3 {
                0 => ("GET".to_owned(), "intranet.apps.test".to_owned()),
                1 => (format!("MARKED{number}"), "intranet.apps.test".to_owned()),
                _ => ("GET".to_owned(), format!("marked{number}.apps.test")),
            };
            let request = format!(
                "{method} /marked{number}?marked HTTP/1.1\r\nHost: {host}\r\nUser-Agent: marked\r\n\
                 Authorization: Basic {basic}\r\nConnection: close\r\n\r\n"
            );
            connection.write_all(request.as_bytes()).await.unwrap();
            let answer = read_all(&mut connection).await;
            assert!(answer.starts_with(b"HTTP/1.1 "));
        });
    }
    busy.join_all().await;

    for gauge in [
        "ravelin_connections{listener=\"public\"} ",
        "ravelin_requests_in_hand ",
        "ravelin_tunnels ",
    ] {
        eventually(gauge, || {
            (world.gateway.metric(gauge)? == 0.0).then_some(())
        });
    }
    let page = get(world.gateway.admin, "/metrics");
    assert!(
        page.contains("ravelin_requests_total{app=\"intranet\",status=\"200\"}"),
        "{page}"
    );
    assert!(!page.to_lowercase().contains("marked"), "{page}");
    assert!(!page.contains("alice"), "{page}");
    assert!(page.contains("ravelin_panics 0"), "{page}");
}

#[test]
fn the_admin_address_answers_under_its_own_name_only() {
    let world = World::new();
    for (host, status) in [
        (world.gateway.admin.to_string(), "200"),
        (format!("localhost:{}", world.gateway.admin.port()), "200"),
        ("evil.test".into(), "421"),
        (format!("evil.test:{}", world.gateway.admin.port()), "421"),
        (String::new(), "421"),
    ] {
        let mut stream = TcpStream::connect(world.gateway.admin).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        write!(
            stream,
            "GET /metrics HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"
        )
        .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status}")),
            "{host}: {answer}"
        );
        assert_eq!(answer.contains("ravelin_"), status == "200", "{host}");
    }
}

const WHO: usize = 8;
const EACH: usize = 100;
