//! A gateway as a whole: what outlives a reload and what does not.

use std::{fs, os::unix::fs::PermissionsExt, sync::Weak};

use super::*;
use crate::{auth::users::hash_password, config::Secret, dial::Dialer, tls::testing::World};

#[tokio::test(start_paused = true)]
async fn what_a_reload_replaced_is_gone_soon_after() {
    let world = World::new();
    let gateway = Gateway::start(config(&world, 1)).await.unwrap();
    settle().await;
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
    settle().await;

    for (round, (snapshot, dialer, pool)) in replaced.iter().enumerate() {
        assert_eq!(snapshot.strong_count(), 0, "snapshot {round}");
        assert_eq!(dialer.strong_count(), 0, "dialer {round}");
        assert_eq!(pool.strong_count(), 0, "pool {round}");
    }
    assert!(Arc::ptr_eq(&kept, &pool(&gateway, "kept")));
    assert_eq!(gateway.shared.tasks.count(), tasks);
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

/// Every watcher has had its next look: the clock of these tests does not wait for it.
async fn settle() {
    tokio::time::sleep(Duration::from_mins(10)).await;
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
         [network]\ninside = [\"127.0.0.0/8\"]\nallow = [\"127.0.0.1:{port}\"]\n\
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
