//! Decisions and refused files, from the text of policies to permits.

use std::{
    collections::HashSet,
    fs,
    num::NonZeroU32,
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use proptest::prelude::*;

use super::*;
use crate::config::{self, Persistence, Source, Strategy};

const SOURCE: &str = "198.51.100.7";

/// A directory of this test's own, gone when it ends.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("ravelin-policy-{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn write(&self, name: &str, text: impl AsRef<[u8]>) -> PathBuf {
        let path = self.0.join(name);
        fs::write(&path, text).unwrap();
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).unwrap_or_default();
    }
}

fn policy(text: &str) -> Policy {
    let folder = Folder::new();
    Policy::load(&[folder.write("test.cedar", text)]).unwrap()
}

/// What is wrong with a text, as `line:column message`.
fn problems(text: &str) -> Vec<String> {
    let folder = Folder::new();
    let errors = check(&[folder.write("test.cedar", text)]);
    let place = |error: &Error| error.place.map(|(l, c)| format!("{l}:{c} "));
    errors
        .iter()
        .map(|error| format!("{}{}", place(error).unwrap_or_default(), error.message))
        .collect()
}

struct Person {
    session: Arc<str>,
    identity: Identity,
}

impl Person {
    fn new(directory: &str, user: &str, groups: &[&str]) -> Self {
        Self {
            session: format!("S-{directory}-{user}").into(),
            identity: Identity {
                user: user.into(),
                directory: directory.into(),
                groups: groups.iter().map(|&group| Arc::from(group)).collect(),
            },
        }
    }

    fn principal(&self) -> Principal<'_> {
        Principal {
            session: &self.session,
            identity: &self.identity,
        }
    }

    fn judge(&self, policy: &Policy, target: &str) -> Result<Candidate, Denied> {
        let target = Target::parse(target).unwrap();
        policy.judge_as(self.principal(), address(SOURCE), &target)
    }

    fn may_ask(&self, policy: &Policy, target: &str) -> bool {
        self.judge(policy, target).is_ok()
    }

    fn reaches(&self, policy: &Policy, target: &str, addresses: &[&str]) -> bool {
        self.tunnel(policy, target, addresses).is_ok()
    }

    /// The addresses that are permitted, and by which policies.
    fn tunnel(
        &self,
        policy: &Policy,
        target: &str,
        addresses: &[&str],
    ) -> Result<(Vec<String>, Vec<String>), Denied> {
        let candidate = self.judge(policy, target)?;
        let addresses: Vec<_> = addresses.iter().map(|&text| address(text)).collect();
        let permit = policy.confirm(&candidate, &addresses)?;
        let What::Tunnel { addresses, .. } = permit.what() else {
            panic!("not a tunnel");
        };
        let ids = permit.policies().iter().map(|id| id.to_string());
        Ok((
            addresses.iter().map(|a| a.ip().to_string()).collect(),
            ids.collect(),
        ))
    }
}

fn alice() -> Person {
    Person::new("corp", "alice", &["sales"])
}

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn app(name: &str, authorization: Authorization) -> App {
    let pool = config::Pool {
        name: "web".into(),
        nodes: Vec::new(),
        strategy: Strategy::RoundRobin,
        tls: None,
        check: config::Check {
            kind: config::CheckKind::None,
            interval: Duration::from_secs(1),
            timeout: Duration::from_secs(1),
            fall: 1,
            rise: 1,
        },
        persistence: Persistence::None,
        source: Source::default(),
        kept_connections: 1,
        max_requests: 1,
    };
    App {
        name: name.into(),
        host: format!("{name}.example.com").into(),
        path: "/".into(),
        pool: Arc::new(pool),
        authorization,
        upstream_host: None,
        path_characters: "".into(),
        first_byte: Duration::from_secs(1),
        progress: Duration::from_secs(1),
        upgrade_idle: Duration::from_secs(1),
        max_body: 1,
        retries: 0,
    }
}

#[test]
fn what_no_policy_allows_is_denied() {
    let policy = Policy::load(&[]).unwrap();

    let denied = alice()
        .judge(&policy, "intranet.corp.test:443")
        .unwrap_err();

    assert_eq!(denied, Denied::by_default());
    assert!(denied.policies.is_empty());
}

#[test]
fn a_group_reaches_what_its_policy_names_and_nothing_else() {
    let policy = policy(
        r#"@id("sales")
        permit (principal in Group::"sales", action == Action::"tunnel", resource)
        when { resource.host like "*.corp.test" && resource.port == 443 };"#,
    );
    let addresses = ["10.0.0.1", "fd00::1"];
    let reached = |person: &Person, target| person.reaches(&policy, target, &addresses);

    let (permitted, by) = alice()
        .tunnel(&policy, "INTRANET.corp.test.:443", &addresses)
        .unwrap();
    assert_eq!(permitted, addresses);
    assert_eq!(by, ["sales"]);

    let bob = Person::new("corp", "bob", &["staff"]);
    assert!(!reached(&bob, "intranet.corp.test:443"));
    assert!(!reached(&alice(), "intranet.corp.test:22"));
    assert!(!reached(&alice(), "corp.test:443"));
    assert!(!reached(&alice(), "evilcorp.test:443"));
    assert!(!reached(&alice(), "intranet.corp.test.evil.test:443"));
}

#[test]
fn a_target_can_be_named_whole() {
    let policy = policy(r#"permit (principal, action, resource == Target::"db.corp.test:5432");"#);

    assert!(alice().may_ask(&policy, "db.corp.test:5432"));
    assert!(!alice().may_ask(&policy, "db.corp.test:5433"));
}

#[test]
fn addresses_are_judged_one_by_one_when_they_are_known() {
    let policy = policy(
        r#"@id("servers")
        permit (principal, action == Action::"tunnel", resource)
        when { resource.address.isInRange(ip("10.1.0.0/16")) };
        @id("not-the-vault")
        forbid (principal, action == Action::"tunnel", resource)
        when { resource.address == ip("10.1.9.9") };"#,
    );
    let addresses = ["10.2.0.1", "10.1.9.9", "::ffff:10.1.0.2", "10.1.0.1"];

    let (permitted, by) = alice()
        .tunnel(&policy, "any.corp.test:443", &addresses)
        .unwrap();
    assert_eq!(permitted, ["10.1.0.2", "10.1.0.1"]);
    assert_eq!(by, ["servers"]);

    let denied = alice()
        .tunnel(&policy, "any.corp.test:443", &["10.1.9.9", "10.2.0.1"])
        .unwrap_err();
    assert_eq!(denied.policies, ["not-the-vault".into()]);
    assert!(denied.reason.contains("not-the-vault"), "{}", denied.reason);
}

#[test]
fn what_no_address_could_change_is_denied_before_a_query() {
    let policy = policy(
        r#"permit (principal, action == Action::"tunnel", resource)
        when { resource.host like "*.corp.test" && resource.address.isInRange(ip("10.0.0.0/8")) };
        @id("never")
        forbid (principal, action == Action::"tunnel", resource)
        when { resource.host == "payroll.corp.test" };"#,
    );

    assert!(alice().may_ask(&policy, "intranet.corp.test:443"));
    assert_eq!(
        alice().judge(&policy, "example.test:443").unwrap_err(),
        Denied::by_default()
    );
    let denied = alice().judge(&policy, "payroll.corp.test:443").unwrap_err();
    assert_eq!(denied.policies, ["never".into()]);
}

#[test]
fn a_literal_address_is_judged_at_once_and_cannot_be_exchanged() {
    let policy = policy(
        r#"permit (principal, action == Action::"tunnel", resource)
        when { resource.address.isInRange(ip("10.0.0.0/8")) ||
               resource.host == "fd00::1" };"#,
    );

    assert!(!alice().may_ask(&policy, "192.0.2.1:443"));
    assert!(alice().reaches(&policy, "10.0.0.1:443", &["10.0.0.1"]));
    assert!(!alice().reaches(&policy, "10.0.0.1:443", &["10.0.0.2"]));
    assert!(alice().reaches(&policy, "[fd00::1]:443", &["fd00::1"]));
}

#[test]
fn no_address_is_no_permit_and_too_many_are_cut() {
    let policy = policy("permit (principal, action, resource);");
    let many: Vec<_> = (0..200).map(|n| format!("10.0.0.{n}")).collect();
    let many: Vec<_> = many.iter().map(String::as_str).collect();

    assert!(!alice().reaches(&policy, "a.test:443", &[]));
    let (permitted, _) = alice().tunnel(&policy, "a.test:443", &many).unwrap();
    assert_eq!(permitted.len(), MAX_ADDRESSES);
}

#[test]
fn a_group_of_one_directory_does_not_pass_for_that_of_another() {
    let policy = policy(
        r#"permit (principal in Group::"corp/admins", action, resource)
        unless { context.directory == "elsewhere" };"#,
    );
    let reaches = |person: Person| person.judge(&policy, "a.test:443").is_ok();

    assert!(reaches(Person::new("corp", "root", &["admins"])));
    assert!(!reaches(Person::new("local", "root", &["admins"])));
    assert!(!reaches(Person::new("local", "root", &["corp/admins"])));
}

#[test]
fn a_person_is_named_with_their_directory() {
    let policy = policy(
        r#"permit (principal == User::"corp/alice", action, resource)
        when { principal.name == "alice" };"#,
    );

    assert!(alice().may_ask(&policy, "a.test:443"));
    let other = Person::new("local", "alice", &[]);
    assert!(!other.may_ask(&policy, "a.test:443"));
    let other = Person::new("local", "corp/alice", &[]);
    assert!(!other.may_ask(&policy, "a.test:443"));
}

#[test]
fn a_forbid_that_cannot_be_evaluated_denies() {
    let policy = policy(
        r#"permit (principal, action, resource);
        @id("broken")
        forbid (principal, action == Action::"tunnel", resource)
        when { resource.port + 9223372036854775807 > 0 };"#,
    );

    let denied = alice().judge(&policy, "a.test:443").unwrap_err();

    assert_eq!(denied.policies, ["broken".into()]);
    assert!(denied.reason.contains("could not be evaluated"));
}

#[test]
fn a_forbid_that_breaks_only_beside_an_address_denies_at_the_end() {
    let policy = policy(
        r#"permit (principal, action, resource);
        forbid (principal, action == Action::"tunnel", resource)
        when { resource.address.isIpv4() && resource.port + 9223372036854775807 > 0 };"#,
    );

    assert!(!alice().reaches(&policy, "a.test:443", &["10.0.0.1"]));
    assert!(alice().reaches(&policy, "a.test:443", &["fd00::1"]));
}

#[test]
fn a_permit_that_cannot_be_evaluated_allows_nothing() {
    let policy = policy(
        r#"permit (principal, action == Action::"tunnel", resource)
        when { resource.port + 9223372036854775807 > 0 };"#,
    );

    assert!(!alice().may_ask(&policy, "a.test:443"));
}

#[test]
fn where_the_device_is_counts_when_a_policy_reads_it() {
    let reading = policy(
        r#"permit (principal, action, resource)
        when { context.source.isInRange(ip("203.0.113.0/24")) };"#,
    );
    let target = Target::parse("a.test:443").unwrap();
    let alice = alice();
    let from = |policy: &Policy, source| {
        let source = address(source);
        policy.judge_as(alice.principal(), source, &target).is_ok()
    };

    assert!(from(&reading, "203.0.113.9"));
    assert!(!from(&reading, "198.51.100.9"));
    assert!(from(&reading, "::ffff:203.0.113.9"));
    assert_eq!(reading.cache.len(), 2);

    let other = policy("permit (principal, action, resource);");
    assert!(from(&other, "203.0.113.9"));
    assert!(from(&other, "198.51.100.9"));
    assert_eq!(other.cache.len(), 1);
}

#[test]
fn an_app_is_opened_by_those_whom_a_policy_names() {
    let policy = policy(
        r#"@id("open")
        permit (principal in Group::"sales", action == Action::"open", resource)
        when { resource.name == "crm" && resource.host == "crm.example.com" &&
               resource.pool == "web" };"#,
    );
    let open = |person: Option<&Person>, app: &App| {
        policy.open_as(person.map(Person::principal), address(SOURCE), app)
    };
    let denied = |person: Option<&Person>, app: &App| open(person, app).is_err();
    let crm = app("crm", Authorization::Gateway);

    let permit = open(Some(&alice()), &crm).unwrap();
    assert!(
        matches!(permit.what(), What::App { app, pool } if **app == *"crm" && **pool == *"web")
    );
    assert_eq!(**permit.policies(), ["open".into()]);
    assert!(denied(Some(&alice()), &app("erp", Authorization::Gateway)));
    assert!(denied(Some(&Person::new("corp", "bob", &[])), &crm));
    assert!(denied(None, &crm));
}

#[test]
fn an_app_with_a_login_of_its_own_is_open_by_configuration() {
    let policy = policy("forbid (principal, action, resource);");
    let app = app("mail", Authorization::Backend);

    let permit = policy.open_as(None, address(SOURCE), &app).unwrap();

    assert_eq!(**permit.policies(), [BY_CONFIGURATION.into()]);
}

#[test]
fn the_starter_set_loads_and_does_what_it_says() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("policies");
    let policy = Policy::load(&[folder.join("starter.cedar")]).unwrap();
    let reaches =
        |person: &Person, target, address| person.tunnel(&policy, target, &[address]).is_ok();
    let staff = Person::new("corp", "bob", &["staff"]);
    let contractor = Person::new("corp", "eve", &["sales", "contractors"]);

    assert!(reaches(
        &alice(),
        "intranet.corp.example.com:443",
        "10.0.0.1"
    ));
    assert!(reaches(
        &alice(),
        "wiki.intranet.corp.example.com:80",
        "10.0.0.1"
    ));
    assert!(!reaches(
        &alice(),
        "intranet.corp.example.com:443",
        "169.254.169.254"
    ));
    assert!(!reaches(
        &alice(),
        "payroll.corp.example.com:443",
        "10.0.0.1"
    ));
    assert!(!reaches(
        &contractor,
        "intranet.corp.example.com:443",
        "10.0.0.1"
    ));
    assert!(reaches(&staff, "mail.corp.example.com:993", "10.0.0.1"));
    assert!(!reaches(
        &staff,
        "intranet.corp.example.com:443",
        "10.0.0.1"
    ));

    let opens = |person: &Person, name| {
        let app = app(name, Authorization::Gateway);
        policy
            .open_as(Some(person.principal()), address(SOURCE), &app)
            .is_ok()
    };
    assert!(opens(&staff, "storefront") && opens(&staff, "intranet"));
    assert!(opens(&contractor, "storefront"));
    assert!(!opens(&Person::new("corp", "x", &[]), "intranet"));
    for line in fs::read_to_string(folder.join("starter.cedar"))
        .unwrap()
        .lines()
    {
        assert!(line.len() <= 100, "{line}");
    }
}

#[test]
fn each_load_is_a_generation_of_its_own() {
    let both = [Policy::load(&[]).unwrap(), Policy::load(&[]).unwrap()];
    let generations: HashSet<_> = both.iter().map(Policy::generation).collect();
    assert_eq!(generations.len(), 2);
}

#[test]
fn policies_without_an_id_are_called_by_file_and_number() {
    let policy = policy(
        "forbid (principal, action, resource) when { context.directory == \"x\" };
        permit (principal, action, resource);",
    );

    let (_, by) = alice()
        .tunnel(&policy, "a.test:443", &["10.0.0.1"])
        .unwrap();

    assert_eq!(by, ["test-2"]);
    assert_eq!(policy.count(), 2);
}

#[test]
fn every_problem_of_every_file_is_told_at_once() {
    let folder = Folder::new();
    let files = [
        folder.write("a.cedar", "permit (principal, action, resource)"),
        folder.0.join("absent.cedar"),
        folder.write("b.cedar", [0xff, 0xfe]),
        folder.write(
            "c.cedar",
            "permit (principal, action == Action::\"fly\", resource);\n\
             permit (principal, action, resource) when { resource.colour == \"red\" };",
        ),
    ];

    let errors = check(&files);

    let of = |name: &str| {
        let errors = errors.iter().filter(|e| e.file.ends_with(name));
        errors.map(ToString::to_string).collect::<Vec<_>>()
    };
    assert!(
        of("a.cedar")[0].contains("a.cedar:1:"),
        "{:?}",
        of("a.cedar")
    );
    assert!(of("absent.cedar")[0].contains("cannot be read"));
    assert!(of("b.cedar")[0].contains("UTF-8"), "{:?}", of("b.cedar"));
    let c = of("c.cedar").join("\n");
    assert!(c.contains("c.cedar:1:") && c.contains("fly"), "{c}");
    assert!(c.contains("c.cedar:2:") && c.contains("colour"), "{c}");
}

#[test]
fn an_id_is_used_once() {
    let found = problems(
        "@id(\"a\") permit (principal, action, resource);\n\n  \
         @id(\"a\") permit (principal, action, resource);",
    );
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].starts_with("3:3 the id a is taken by the policy at "));
    assert!(found[0].ends_with("test.cedar:1:1"));
}

#[test]
fn an_id_cannot_smuggle_other_text_into_the_log() {
    for id in ["", "(configuration)", "a\\nb", "a\\\"b", &"x".repeat(65)] {
        let found = problems(&format!(
            "@id(\"{id}\") permit (principal, action, resource);"
        ));
        assert!(found[0].contains("an id has 1 to 64"), "{found:?}");
    }
}

#[test]
fn a_template_is_refused() {
    let found = problems("permit (principal == ?principal, action, resource);");
    assert!(found[0].contains("slot"), "{found:?}");
    assert!(found[0].starts_with("1:1 "), "{found:?}");
}

#[test]
fn asking_whether_there_is_an_address_is_refused() {
    let found = problems(
        r#"permit (principal, action == Action::"tunnel", resource)
        when { resource has address };"#,
    );
    assert!(found[0].contains("has address"), "{found:?}");
}

#[test]
fn hosts_that_can_never_match_are_refused() {
    for condition in [
        r#"resource.host == "Intranet.corp.test""#,
        r#""Intranet.corp.test" == resource.host"#,
        r#"resource.host like "*.CORP.test""#,
        r#"["a.test", "B.test"].contains(resource.host)"#,
        r#"resource.host == "intranet.corp.test.""#,
    ] {
        let found = problems(&format!(
            "permit (principal, action == Action::\"tunnel\", resource) when {{ {condition} }};"
        ));
        assert_eq!(found.len(), 1, "{condition}: {found:?}");
        assert!(found[0].contains("never matches"), "{found:?}");
    }
    for target in ["Intranet.test:443", "intranet.test", "[::ffff:10.0.0.1]:22"] {
        let found = problems(&format!(
            "permit (principal, action, resource == Target::\"{target}\");"
        ));
        assert!(found[0].contains("never matches"), "{target}: {found:?}");
    }
}

#[test]
fn text_that_hides_what_it_does_is_refused() {
    let found = problems("permit (principal == User::\"corp/\u{202e}ecila\", action, resource);");
    assert!(!found.is_empty());
    // A Cyrillic letter among Latin ones.
    let found = problems("permit (principal in Group::\"s\u{430}les\", action, resource);");
    assert!(!found.is_empty());
}

#[test]
fn a_file_has_a_size_limit() {
    let found = problems(&" ".repeat((16 << 20) + 1));
    assert_eq!(found, ["cannot be read: more than 16 MiB"]);
}

/// Not a check: prints what decisions cost on this machine.
#[test]
#[ignore = "a measurement: run it alone, with optimisation"]
fn what_a_decision_costs() {
    for count in [10, 100, 1000] {
        let text: String = (0..count)
            .map(|n| {
                format!(
                    "permit (principal in Group::\"g{n}\", action == Action::\"tunnel\", resource)
                     when {{ resource.host like \"*.d{n}.test\" && resource.port == 443 }};\n"
                )
            })
            .collect();
        let policy = policy(&text);
        let person = Person::new("corp", "alice", &["g1", "sales"]);
        let targets: Vec<_> = (0..1000)
            .map(|n| Target::parse(&format!("h{n}.d1.test:443")).unwrap())
            .collect();
        let rounds = NonZeroU32::new(1000).unwrap();
        for temperature in ["cold", "warm"] {
            let start = crate::clock::now();
            for target in &targets {
                policy
                    .judge_as(person.principal(), address(SOURCE), target)
                    .unwrap();
            }
            let each = start.elapsed() / rounds.get();
            println!("{count} policies, {temperature}: {each:?}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn no_policy_text_panics(text in "(permit|forbid|@id|when|\\{|\\}|\\(|\\)|\"|;|,|[a-z]|::| |\\PC){0,60}") {
        let folder = Folder::new();
        let _either = Policy::load(&[folder.write("test.cedar", text)]);
    }

    #[test]
    fn no_identity_or_host_panics(user in "\\PC{0,40}", directory in "\\PC{0,20}", group in "\\PC{0,20}", host in "[a-z0-9.-]{1,40}", port in 1u16..) {
        let policy = policy(
            r#"permit (principal, action == Action::"tunnel", resource)
            when { resource.host like "*.test" || resource.address.isLoopback() };"#,
        );
        let person = Person::new(&directory, &user, &[&group]);
        if let Ok(target) = Target::parse(&format!("{host}:{port}")) {
            let decided = policy.judge_as(person.principal(), address(SOURCE), &target);
            let Ok(candidate) = decided else { return Ok(()); };
            let allowed = policy.confirm(&candidate, &[address("10.0.0.1")]).is_ok();
            prop_assert_eq!(allowed, host.trim_end_matches('.').ends_with(".test"));
        }
    }
}
