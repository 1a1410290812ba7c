//! Many at once: tunnels that all move their bytes, and a stop under load that loses nothing.

use std::net::SocketAddr;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    task::JoinSet,
};

use crate::support::{
    device::{Device, read_all},
    eventually,
    gateway::ALICE,
    world::World,
};

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_tunnels_at_once_move_their_bytes_intact() {
    let echo = echo().await;
    let world = World::build(&[echo], |_| {
        "[tunnel]\nmax_per_session = 2000\nopens_per_second = 2000\n[limits]\nhandshake = \"60s\"\nhead = \"60s\"\n".into()
    });
    let device = Device::new(world.gateway.address, &world.authority(), &[]);
    let credential = format!("alice:{ALICE}");

    let mut opening = JoinSet::new();
    for _ in 0..TUNNELS {
        let (device, credential) = (device.clone(), credential.clone());
        opening.spawn(async move { device.tunnel(&echo.to_string(), &credential).await });
    }
    let tunnels = opening.join_all().await;
    eventually("all tunnels to be counted", || {
        (world.gateway.metric("ravelin_tunnels ")? == f64::from(TUNNELS)).then_some(())
    });
    let checks = "ravelin_password_checks_total{outcome=\"right\"}";
    assert_eq!(
        world.gateway.metric(checks),
        Some(1.0),
        "one password check for all of them"
    );
    let mut moving = JoinSet::new();
    for (number, mut tunnel) in (0..TUNNELS).zip(tunnels) {
        moving.spawn(async move {
            let sent = block(number);
            let (mut read, mut write) = tokio::io::split(&mut tunnel);
            let write = async {
                write.write_all(&sent).await.unwrap();
                write.shutdown().await.unwrap();
            };
            let mut got = Vec::new();
            let read = read.read_to_end(&mut got);
            let ((), end) = tokio::join!(write, read);
            end.unwrap();
            assert!(got == sent, "tunnel {number} got other bytes than it sent");
        });
    }
    moving.join_all().await;

    eventually("the gauge to come back to zero", || {
        (world.gateway.metric("ravelin_tunnels ")? == 0.0).then_some(())
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_under_load_loses_no_byte_of_a_request_already_accepted() {
    let mut world = World::new();
    let files = world.intranet.directory().join("root/files");
    std::fs::create_dir(&files).unwrap();
    let bytes = block(7).repeat(128);
    std::fs::write(files.join("big.bin"), &bytes).unwrap();
    let device = Device::new(world.gateway.address, &world.authority(), &[]);
    let basic = data_encoding::BASE64.encode(format!("alice:{ALICE}").as_bytes());
    let request = format!(
        "GET /files/big.bin HTTP/1.1\r\nHost: intranet.apps.test\r\nAuthorization: Basic {basic}\r\n\r\n"
    );

    let mut answers = JoinSet::new();
    for _ in 0..50 {
        let mut connection = device.connect("intranet.apps.test").await;
        connection.write_all(request.as_bytes()).await.unwrap();
        let head = crate::support::device::read_head(&mut connection).await;
        assert!(head.starts_with("HTTP/1.1 200"), "{head}");
        answers.spawn(async move { read_all(&mut connection).await });
    }
    world.gateway.signal("TERM");

    while let Some(answer) = answers.join_next().await {
        assert!(answer.unwrap() == bytes, "an answer was cut");
    }
    assert!(world.gateway.wait().success());
}

/// A server that gives back what it gets, until its peer closes.
pub(crate) async fn echo() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut read, mut write) = stream.split();
                drop(tokio::io::copy(&mut read, &mut write).await);
                drop(write.shutdown().await);
            });
        }
    });
    address
}

/// 64 KiB that no other number has.
fn block(number: u32) -> Vec<u8> {
    (0..16_384_u32)
        .flat_map(|i| (i.wrapping_mul(2_654_435_761) ^ number.wrapping_mul(0x9e37)).to_be_bytes())
        .collect()
}

const TUNNELS: u32 = 1000;
