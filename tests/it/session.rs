//! Sessions as guessers and operators see them: limits on failures, time, lists and kills.

use std::{
    os::unix::fs::PermissionsExt,
    process::Output,
    time::{Duration, Instant},
};

use tokio::io::AsyncWriteExt;

use crate::{
    ldap,
    load::echo,
    login::{Browser, assert_absent, field, tunnel},
    support::{
        client::Curl,
        device::{Device, read_all},
        eventually,
        gateway::{ALICE, BOB, ravelin},
        world::World,
    },
};

#[test]
fn after_too_many_failures_a_name_is_refused_from_everywhere_and_others_are_not() {
    let world = World::with(QUICK);
    let alice = format!("alice:{ALICE}");
    for number in 1..=3 {
        let wrong = ask(&world, number, &format!("alice:canary-wrong-{number}"));
        assert_eq!(wrong.status, 401, "{wrong:?}");
    }

    let wrong = ask(&world, 4, "alice:canary-wrong-4");
    let right = ask(&world, 5, &alice);
    let other = ask(&world, 6, &format!("bob:{BOB}"));

    assert_eq!((wrong.status, right.status, other.status), (401, 401, 200));
    assert_eq!(without_id(&wrong.body), without_id(&right.body), "alike");
    let id = crate::connect::refusal_id(&right.body);
    let line = world
        .gateway
        .log_line("the refusal", |line| line["refusal"] == id.as_str());
    let reason = line["reason"].as_str().unwrap();
    assert!(reason.contains("too many failures of user #"), "{line}");
    assert_eq!(checks(&world, "limited"), 2.0);
    assert_eq!(checks(&world, "wrong"), 3.0);
    eventually(
        "the pause to end, and the right password to be right",
        || (ask(&world, 5, &alice).status == 200).then_some(()),
    );
    assert_absent(&world, &["canary-wrong", ALICE, BOB]);
}

#[test]
fn after_too_many_failures_a_source_is_refused_whatever_name_it_tries() {
    let world = World::with(QUICK);
    for number in 1..=3 {
        let wrong = ask(&world, 77, &format!("user-{number}:wrong"));
        assert_eq!(wrong.status, 401, "{wrong:?}");
    }

    let same = ask(&world, 77, &format!("bob:{BOB}"));
    let another = ask(&world, 78, &format!("bob:{BOB}"));

    assert_eq!((same.status, another.status), (401, 200), "{same:?}");
    let line = world.gateway.log_line("the reason", |line| {
        line["reason"] == "login refused: too many failures from 127.0.0.77"
    });
    assert_eq!(line["stage"], "login");
}

#[test]
fn a_source_that_many_share_is_not_limited() {
    let world = World::with(&format!("{QUICK}shared_sources = [\"127.0.0.77/32\"]\n"));
    for number in 1..=8 {
        ask(&world, 77, &format!("user-{number}:wrong"));
    }

    let right = ask(&world, 77, &format!("bob:{BOB}"));

    assert_eq!(right.status, 200, "{right:?}");
    assert_eq!(checks(&world, "wrong"), 8.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_file_takes_the_same_steps_for_every_failure() {
    let world = World::with(&format!("[login]\n{SLOW}"));
    takes_the_same_steps(&world).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_takes_the_same_steps_for_every_failure() {
    let (world, _slapd) = ldap::directory_with(SLOW);
    takes_the_same_steps(&world).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_sees_sessions_and_ends_them() {
    let echo = echo().await;
    let world = World::build(&[echo], |_| String::new());
    let alice = Browser::new(&world, "alice");
    alice.log_in("alice", ALICE);
    let bob = Browser::new(&world, "bob");
    bob.log_in("bob", BOB);
    let device = Device::new(world.gateway.address, &world.authority(), &[]);
    let credential = format!("alice:{ALICE}");
    let mut open = device.tunnel(&echo.to_string(), &credential).await;
    let made = alice.post("/token", &[("csrf", &field(&alice.get("/").body, "csrf"))]);
    let start = made.body.find("rvt_").unwrap();
    let token = made.body[start..].split('<').next().unwrap().to_owned();
    assert_eq!(tunnel(&world, &token).status, 200);

    let list = show(&world, &["sessions"]);
    let sessions = json(&world, &["sessions"])["sessions"].clone();

    let sessions = sessions.as_array().unwrap();
    let find = |user: &str, class: &str| {
        sessions
            .iter()
            .find(|one| one["user"] == user && one["class"] == class)
            .unwrap_or_else(|| panic!("no {class} session of {user}: {sessions:?}"))
    };
    assert_eq!(sessions.len(), 4, "{list}");
    assert_eq!(find("alice", "basic")["tunnels"], 1);
    assert_eq!(find("bob", "browser")["directory"], "local");
    for session in sessions {
        let row = list
            .lines()
            .find(|line| line.starts_with(session["id"].as_str().unwrap()))
            .unwrap_or_else(|| panic!("{session} is not in:\n{list}"));
        assert!(row.contains(session["user"].as_str().unwrap()), "{list}");
    }

    let id = |session: &serde_json::Value| session["id"].as_str().unwrap().to_owned();
    assert_eq!(
        show(&world, &["kill", &id(find("alice", "browser"))]),
        "ended 1 session\n"
    );
    assert_eq!(alice.get("/").status, 303, "her browser is out");
    open.write_all(b"still here").await.unwrap();
    assert_eq!(tunnel(&world, &token).status, 200, "the others go on");

    assert_eq!(
        show(&world, &["kill", &id(find("alice", "basic"))]),
        "ended 1 session\n"
    );
    assert!(
        read_all(&mut open).await.len() <= 10,
        "the tunnel has ended"
    );
    assert_eq!(
        show(&world, &["kill", &id(find("alice", "device"))]),
        "ended 1 session\n"
    );
    assert_eq!(tunnel(&world, &token).status, 407, "its token is revoked");
    assert_eq!(
        show(&world, &["kill", "S-AAAAAAAAAAAAAAAA"]),
        "ended 0 sessions\n"
    );
    assert_eq!(bob.get("/").status, 200);
    assert_absent(&world, &[&token, ALICE, BOB]);
}

#[test]
fn an_operator_ends_all_sessions_of_a_user_or_of_everybody() {
    let world = World::new();
    let alice = Browser::new(&world, "alice");
    let bob = Browser::new(&world, "bob");
    bob.log_in("bob", BOB);
    assert_eq!(
        show(&world, &["kill", "--user", "bob"]),
        "ended 1 session\n"
    );
    assert_eq!(bob.get("/").status, 303);

    alice.log_in("alice", ALICE);
    bob.log_in("bob", BOB);
    let page = bob.post("/token", &[("csrf", &field(&bob.get("/").body, "csrf"))]);
    let start = page.body.find("rvt_").unwrap();
    let unused = page.body[start..].split('<').next().unwrap();
    assert_eq!(show(&world, &["kill", "--all"]), "ended 2 sessions\n");
    assert_eq!((alice.get("/").status, bob.get("/").status), (303, 303));
    assert_eq!(
        tunnel(&world, unused).status,
        407,
        "tokens not in use end too"
    );
    assert_eq!(
        json(&world, &["sessions"])["sessions"]
            .as_array()
            .unwrap()
            .len(),
        0
    );
    assert_absent(&world, &[unused, ALICE, BOB]);
}

#[test]
fn an_operator_sees_status_and_pools_and_reloads() {
    let world = World::build(&[], |_| {
        "[pool.gone]\nnodes = [\"http://127.0.0.1:9\"]\n\
         check = { type = \"tcp\", interval = \"500ms\", timeout = \"200ms\", fall = 1 }\n\
         [app.other]\nhost = \"other.apps.test\"\npool = \"gone\"\n"
            .into()
    });

    let status = json(&world, &["status"])["status"].clone();
    assert_eq!(status["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(status["listeners"][0], world.gateway.address.to_string());
    assert_eq!(
        (&status["generation"], &status["draining"]),
        (&1.into(), &false.into())
    );
    let text = show(&world, &["status"]);
    assert!(text.contains(", serving for "), "{text}");

    let node = eventually("the node that is not there to be down", || {
        let pools = json(&world, &["pools"])["pools"].clone();
        let mut nodes = pools.as_array().unwrap().iter();
        nodes
            .find(|node| node["pool"] == "gone" && node["state"] == "down")
            .cloned()
    });
    assert!(!node["reason"].as_str().unwrap().is_empty(), "{node}");
    let text = show(&world, &["pools"]);
    assert!(text.contains("down") && text.contains("intranet"), "{text}");

    let config = world.site.path("ravelin.toml");
    let good = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, good.replace("host = \"other", "hots = \"other")).unwrap();
    let refused = run(&world, &["reload"]);
    let reason = String::from_utf8_lossy(&refused.stderr);
    assert_eq!(refused.status.code(), Some(1), "{reason}");
    assert!(
        reason.contains("hots") && reason.contains("host"),
        "{reason}"
    );
    assert_eq!(json(&world, &["status"])["status"]["generation"], 1);

    std::fs::write(
        &config,
        good + "\n[pool.more]\nnodes = [\"http://127.0.0.1:9\"]\n",
    )
    .unwrap();
    assert_eq!(
        show(&world, &["reload"]),
        "the new configuration is in force\n"
    );
    assert_eq!(json(&world, &["status"])["status"]["generation"], 2);
}

#[test]
fn the_control_socket_is_for_its_owner_and_says_when_nobody_answers() {
    let world = World::new();
    let path = world.site.path("control.sock");
    let mode = std::fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);

    let nobody = ravelin()
        .args(["status", "--control"])
        .arg(world.site.path("no.sock"))
        .output()
        .unwrap();

    let said = String::from_utf8_lossy(&nobody.stderr);
    assert_eq!(nobody.status.code(), Some(1), "{said}");
    assert!(said.contains("no.sock"), "{said}");
}

/// Unknown, wrong and locked, in turn: the same answer, at the same steps of time.
async fn takes_the_same_steps(world: &World) {
    let device = Device::new(world.gateway.address, &world.authority(), &[]);
    // Alice is locked by tries that are made together.
    let tries = (0..12).map(|number| fail(&device, "alice", format!("lock-{number}")));
    futures_util::future::join_all(tries).await;

    let mut kinds = [const { Vec::new() }; 3];
    let mut answers = Vec::new();
    for round in 0..ROUNDS {
        for (kind, user) in ["nobody", "bob", "alice"].into_iter().enumerate() {
            let (answer, took) = fail(&device, user, format!("wrong-{round}")).await;
            kinds[kind].push(took);
            answers.push(answer);
        }
    }

    for answer in &answers {
        assert_eq!(answer, &answers[0], "one of them can be told apart");
    }
    assert!(answers[0].starts_with("HTTP/1.1 401"), "{}", answers[0]);
    assert!(checks(world, "limited") >= 5.0, "alice was locked");
    assert!(checks(world, "wrong") >= 14.0, "the others were asked for");
    let medians = kinds.map(|mut times| {
        times.sort();
        times[ROUNDS / 2]
    });
    for median in medians {
        let steps = median.as_secs_f64() / STEP.as_secs_f64();
        assert!(steps >= 1.0, "an answer before the first step: {medians:?}");
        assert!(
            steps.fract() < 0.4,
            "an answer between the steps: {medians:?}"
        );
        let first = medians[0].as_secs_f64() / STEP.as_secs_f64();
        assert_eq!(steps.floor(), first.floor(), "another step: {medians:?}");
    }
}

/// One wrong password for a device token: the answer without its id and date, and the time that
/// it took.
async fn fail(device: &Device, user: &str, password: String) -> (String, Duration) {
    let mut connection = device.connect("gw.ravelin.test").await;
    let basic = data_encoding::BASE64.encode(format!("{user}:{password}").as_bytes());
    let request = format!(
        "POST /token HTTP/1.1\r\nHost: gw.ravelin.test\r\nContent-Length: 0\r\n\
         Connection: close\r\nAuthorization: Basic {basic}\r\n\r\n"
    );
    let asked = Instant::now();
    connection.write_all(request.as_bytes()).await.unwrap();
    let answer = String::from_utf8(read_all(&mut connection).await).unwrap();
    let took = asked.elapsed();
    let answer = answer
        .lines()
        .filter(|line| !line.to_lowercase().starts_with("date:"))
        .collect::<Vec<_>>()
        .join("\n");
    (without_id(&answer), took)
}

/// Asks for a device token from `127.0.0.SOURCE`: 200 for whom the gateway knows.
fn ask(world: &World, source: u8, credential: &str) -> Curl {
    let source = format!("127.0.0.{source}");
    let url = world.url("gw.ravelin.test") + "/token";
    world.curl(&[
        "--interface",
        &source,
        "--user",
        credential,
        "--request",
        "POST",
        &url,
    ])
}

fn checks(world: &World, outcome: &str) -> f64 {
    let name = format!("ravelin_password_checks_total{{outcome=\"{outcome}\"}}");
    world.gateway.metric(&name).unwrap_or(0.0)
}

fn without_id(text: &str) -> String {
    text.replace(&crate::connect::refusal_id(text), "ID")
}

/// Runs a command that asks the gateway.
fn run(world: &World, arguments: &[&str]) -> Output {
    ravelin()
        .args(arguments)
        .arg("--control")
        .arg(world.site.path("control.sock"))
        .output()
        .unwrap()
}

/// What a command prints, which fits into a terminal.
fn show(world: &World, arguments: &[&str]) -> String {
    let output = run(world, arguments);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(
        output.status.success(),
        "{text}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    for line in text.lines() {
        assert!(line.chars().count() <= 80, "wider than a terminal:\n{text}");
        assert!(!line.ends_with(' '), "blanks at the end:\n{text}");
    }
    text
}

/// What a command prints for programs.
fn json(world: &World, arguments: &[&str]) -> serde_json::Value {
    let arguments = [arguments, &["--json"]].concat();
    let output = run(world, &arguments);
    serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&output.stdout)))
}

const QUICK: &str = "[login]\nattempts = 3\nstep = \"100ms\"\n";
const STEP: Duration = Duration::from_secs(1);
const SLOW: &str = "attempts = 12\nstep = \"1s\"\nshared_sources = [\"127.0.0.0/8\"]\n";
const ROUNDS: usize = 7;
