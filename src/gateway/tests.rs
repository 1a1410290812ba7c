//! A gateway as a whole: what outlives a reload and what does not.

use std::{fs, net::IpAddr, os::unix::fs::PermissionsExt, sync::Weak};

use tokio_util::sync::CancellationToken;

use super::*;
use crate::{
    auth::{Identity, users::hash_password},
    config::Secret,
    dial::Dialer,
    session::Class,
    tls::testing::World,
};

#[tokio::test]
async fn what_a_reload_replaced_is_gone_soon_after() {
    let world = World::new();
    let gateway = Gateway::start(config(&world, 1)).await.unwrap();
    let tasks = gateway.shared.tasks.count();
    let kept = pool(&gateway, "kept");
    let mut replaced: Vec<(Weak<Snapshot>, Weak<Dialer>, Weak<crate::balance::Pool>)> = Vec::new();

    for round in 2..=21 {
        let old = gateway.shared.snapshot();
        let changed = pool(&gateway, "changed");
        replaced.push((
            Arc::downgrade(&old),
            Arc::downgrade(&old.dialer),
            Arc::downgrade(&changed),
        ));
        drop((old, changed));
        gateway.reload(config(&world, round)).await.unwrap();
    }

    assert!(Arc::ptr_eq(&kept, &pool(&gateway, "kept")));
    // Requests and probes that hold them end first; watchers look every few seconds whether what
    // they watch is still there.
    let gone = async {
        while replaced.iter().any(|(snapshot, dialer, pool)| {
            snapshot.strong_count() + dialer.strong_count() + pool.strong_count() > 0
        }) || gateway.shared.tasks.count() > tasks
        {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), gone)
        .await
        .unwrap_or_else(|_| panic!("{} tasks, {tasks} before", gateway.shared.tasks.count()));
    assert_eq!(gateway.shared.snapshot().generation, 21);
    assert!(gateway.drain().await);
}

#[tokio::test]
async fn a_gateway_that_drains_takes_no_new_configuration() {
    let world = World::new();
    let gateway = Gateway::start(config(&world, 1)).await.unwrap();
    assert!(gateway.drain().await);

    let refused = gateway.reload(config(&world, 2)).await;

    assert!(matches!(refused, Err(Error::Draining)));
}

#[tokio::test]
async fn a_relay_that_was_judged_by_replaced_policies_is_judged_again_as_it_is_entered() {
    let world = World::new();
    let gateway = Gateway::start(config(&world, 1)).await.unwrap();
    let shared = &gateway.shared;
    let old = shared.snapshot();
    let device = IpAddr::from([192, 0, 2, 1]);
    let alice = Identity {
        user: "alice".into(),
        directory: "local".into(),
        groups: Arc::from([]),
    };
    let session = shared
        .sessions
        .open(alice, Class::Browser, device, clock::now())
        .unwrap();
    let permit = old
        .policy
        .open(Some(&session), device, &old.config.apps[0])
        .unwrap();
    let open = |stop: &CancellationToken| Open {
        session: Some(Arc::clone(&session)),
        source: device,
        permit: permit.clone(),
        address: SocketAddr::from(([127, 0, 0, 1], 1001)),
        stop: stop.clone(),
        relayed: Arc::default(),
    };
    let (early, late) = (CancellationToken::new(), CancellationToken::new());

    let _early = shared.watch(&old, open(&early));
    assert!(!early.is_cancelled());
    fs::write(world.path("all.cedar"), "// nobody may anything").unwrap();
    gateway.reload(config(&world, 1)).await.unwrap();
    assert!(early.is_cancelled());
    let _late = shared.watch(&old, open(&late));
    assert!(late.is_cancelled());
}

fn pool(gateway: &Gateway, name: &str) -> Arc<crate::balance::Pool> {
    let snapshot = gateway.shared.snapshot();
    let found = snapshot.pools().find(|pool| *pool.config().name == *name);
    Arc::clone(found.unwrap())
}

/// A configuration in which one pool, the networks and a limit are of this round.
fn config(world: &World, round: u32) -> Config {
    let key = world.path("gw.key");
    if !key.exists() {
        world.issue("gw", &["gw.test"], &rcgen::PKCS_ECDSA_P256_SHA256);
        let hash = hash_password(&Secret::new(b"secret".to_vec()));
        fs::write(world.path("users"), format!("alice:sales:{hash}\n")).unwrap();
        fs::write(
            world.path("all.cedar"),
            "permit (principal, action, resource);",
        )
        .unwrap();
        for file in [key, world.path("users")] {
            fs::set_permissions(file, fs::Permissions::from_mode(0o600)).unwrap();
        }
    }
    let check = "{ type = \"tcp\", interval = \"10s\", timeout = \"1s\" }";
    let text = format!(
        "host = \"gw.test\"\ndemo = true\n\
         [listener.public]\naddresses = [\"127.0.0.1:0\"]\ncertificates = [\"gw\"]\n\
         [certificate.gw]\nchain = \"gw.pem\"\nkey = \"file:gw.key\"\n\
         [directory.local]\ntype = \"users\"\nfile = \"users\"\n\
         [network]\ninside = [\"127.0.0.0/8\"]\nallow = [\"127.0.0.1:{port}\"]\nkept_idle = \"2s\"\n\
         [dns]\nservers = [\"127.0.0.1:53\"]\n\
         [pool.kept]\nnodes = [\"http://127.0.0.1:9\"]\ncheck = {check}\n\
         [pool.changed]\nnodes = [\"http://127.0.0.1:9\"]\ncheck = {check}\nmax_requests = {port}\n\
         [app.kept]\nhost = \"kept.test\"\npool = \"kept\"\n\
         [app.changed]\nhost = \"changed.test\"\npool = \"changed\"\n\
         [policy]\nfiles = [\"all.cedar\"]\n[admin]\naddress = \"127.0.0.1:0\"\n\
         [log]\naccess = \"off\"\n",
        port = 1000 + round,
    );
    let file = world.path("ravelin.toml");
    fs::write(&file, text).unwrap();
    Config::load(&file).unwrap_or_else(|problems| panic!("{problems}"))
}
