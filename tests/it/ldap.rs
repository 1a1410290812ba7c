//! slapd as the company's directory: login, groups, and a directory that is gone.

use crate::support::{
    certificates::Authority,
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

/// A world whose people are in slapd, over LDAPS.
fn directory() -> (World, Peer) {
    let certificates = tempfile::tempdir().unwrap();
    let authority = Authority::new(certificates.path(), "directory-ca");
    let pair = authority.issue("slapd", &["127.0.0.1", "ldap.corp.test"]);
    let ca = certificates.path().join("directory-ca.pem");
    let slapd = peers::slapd(Some((&pair, &ca)));
    let world = World::build(&[], |site| {
        std::fs::copy(&ca, site.path("directory-ca.pem")).unwrap();
        site.write("ldap-secret", "service secret\n");
        let secret = site.path("ldap-secret");
        std::fs::set_permissions(secret, std::os::unix::fs::PermissionsExt::from_mode(0o600))
            .unwrap();
        format!(
            "[directory.corp]\ntype = \"ldap\"\nservers = [\"ldaps://{}\"]\nca = \"directory-ca.pem\"\n\
             bind_dn = \"cn=ravelin,dc=corp,dc=test\"\nbind_password = \"file:ldap-secret\"\n\
             user_base = \"ou=people,dc=corp,dc=test\"\nuser_attribute = \"uid\"\n\
             group_base = \"dc=corp,dc=test\"\ngroup_member = \"member\"\ngroup_name = \"cn\"\n\
             [login]\ndirectories = [\"corp\"]\n",
            slapd.address
        )
    });
    (world, slapd)
}
