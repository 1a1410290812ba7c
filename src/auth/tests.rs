//! Tests of the authenticator, over a user file.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use crate::crypto;

const STEP: Duration = Duration::from_millis(400);

fn login() -> config::Login {
    let minute = Duration::from_secs(60);
    config::Login {
        title: "Example".into(),
        step: STEP,
        attempts: 5,
        attempts_window: minute * 15,
        shared_sources: Vec::new(),
        checks_at_once: 2,
        check_queue: 20,
        session_idle: minute * 30,
        session_absolute: minute * 480,
        device_token: minute * 10_080,
        browser_token: minute * 5,
        basic_memory: minute * 5,
        max_sessions: 100,
        max_sessions_per_user: 10,
    }
}

/// An authenticator that knows `alice` with the password `right`.
fn authenticator(login: &config::Login) -> Arc<Authenticator> {
    let name: [u8; 8] = crypto::random();
    let name = format!("ravelin-auth-{}", data_encoding::HEXLOWER.encode(&name));
    let path = std::env::temp_dir().join(name);
    let hash = hash_password(&secret("right"));
    std::fs::write(&path, format!("alice:sales:{hash}\n")).unwrap();
    let authenticator = Authenticator::for_test(&path, login);
    std::fs::remove_file(&path).unwrap();
    Arc::new(authenticator)
}

fn secret(text: &str) -> Secret {
    Secret::new(text.as_bytes().to_vec())
}

async fn try_as(
    authenticator: &Authenticator,
    user: &str,
    password: &str,
    source: [u8; 4],
) -> Result<Identity, String> {
    let attempt = Attempt {
        user,
        password: &secret(password),
        source: source.into(),
    };
    authenticator
        .check(attempt, clock::now())
        .await
        .map_err(|error| error.to_string())
}

#[tokio::test]
async fn a_right_password_gives_the_identity() {
    let authenticator = authenticator(&login());
    let identity = try_as(&authenticator, "alice", "right", [192, 0, 2, 1])
        .await
        .unwrap();
    assert_eq!(&*identity.user, "alice");
    assert_eq!(&*identity.directory, "local");
    assert_eq!(&*identity.groups, [Arc::from("sales")]);
}

#[tokio::test]
async fn every_failure_answers_at_a_step() {
    let authenticator = authenticator(&login());
    for (user, password) in [
        ("alice", "wrong"),
        ("nobody", "wrong"),
        ("nobody", "wrong"),
        ("alice", ""),
        ("", "x"),
    ] {
        let asked = clock::now();
        try_as(&authenticator, user, password, [192, 0, 2, 1])
            .await
            .unwrap_err();
        let took = clock::now() - asked;
        let over = took.as_millis() % STEP.as_millis();
        assert!(took >= STEP && over < 150, "{user}/{password}: {took:?}");
    }
}

#[tokio::test]
async fn an_unknown_name_is_in_no_reason() {
    let authenticator = authenticator(&login());
    let reason = try_as(&authenticator, "hunter2", "x", [192, 0, 2, 1])
        .await
        .unwrap_err();
    assert!(reason.contains("unknown user #"), "{reason}");
    assert!(!reason.contains("hunter2"), "{reason}");
}

#[tokio::test]
async fn after_five_failures_a_right_password_is_refused_too() {
    let authenticator = authenticator(&login());
    for number in 0..5 {
        let password = format!("wrong{number}");
        let source = [192, 0, 2, number];
        try_as(&authenticator, "alice", &password, source)
            .await
            .unwrap_err();
    }
    let reason = try_as(&authenticator, "alice", "right", [198, 51, 100, 1])
        .await
        .unwrap_err();
    assert!(reason.contains("too many failures of user #"), "{reason}");
}

#[tokio::test]
async fn a_password_that_fails_again_and_again_counts_once() {
    let authenticator = authenticator(&login());
    for _ in 0..8 {
        try_as(&authenticator, "alice", "old", [192, 0, 2, 1])
            .await
            .unwrap_err();
    }
    try_as(&authenticator, "alice", "right", [192, 0, 2, 1])
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_tries_at_once_are_one_check() {
    let authenticator = authenticator(&login());
    let checks = Arc::new(AtomicUsize::new(0));
    let tries = (0..1000).map(|_| {
        let checks = Arc::clone(&checks);
        let authenticator = Arc::clone(&authenticator);
        async move {
            let attempt = Attempt {
                user: "alice",
                password: &secret("right"),
                source: [192, 0, 2, 1].into(),
            };
            authenticator
                .check_then(attempt, clock::now(), move |_identity| {
                    checks.fetch_add(1, Ordering::Relaxed);
                })
                .await
        }
    });
    let results = futures_util::future::join_all(tries).await;

    assert!(results.into_iter().all(|result| result.is_ok()));
    assert_eq!(checks.load(Ordering::Relaxed), 1);
    assert!(authenticator.flights.lock().unwrap().is_empty());
}

#[tokio::test]
async fn more_checks_than_the_queue_holds_are_told_to_come_again() {
    let mut login = login();
    login.checks_at_once = 1;
    login.check_queue = 1;
    let authenticator = authenticator(&login);
    let tries = (0..10).map(|number| {
        let authenticator = Arc::clone(&authenticator);
        async move {
            let user = format!("user{number}");
            try_as(&authenticator, &user, "x", [192, 0, 2, number]).await
        }
    });
    let results = futures_util::future::join_all(tries).await;

    let busy = results
        .iter()
        .filter(|result| matches!(result, Err(reason) if reason.contains("waiting")));
    assert_eq!(busy.count(), 8);
}

#[tokio::test]
async fn what_no_directory_must_be_asked_is_refused_first() {
    let authenticator = authenticator(&login());
    let long = "x".repeat(64 << 10);
    for (user, password) in [
        ("alice", ""),
        ("alice", "a\0b"),
        ("alice", &*long),
        (&*long, "x"),
        ("", "x"),
        ("al\nice", "x"),
    ] {
        let reason = try_as(&authenticator, user, password, [192, 0, 2, 1])
            .await
            .unwrap_err();
        assert!(reason.len() < 100);
    }
}

#[test]
fn the_next_step_is_counted_from_the_request() {
    let asked = clock::now();
    let step = Duration::from_millis(500);
    for (passed, left) in [
        (0, 500),
        (1, 499),
        (499, 1),
        (500, 0),
        (501, 499),
        (1200, 300),
    ] {
        let now = asked + Duration::from_millis(passed);
        assert_eq!(until_step(asked, now, step), Duration::from_millis(left));
    }
    assert_eq!(until_step(asked, asked, Duration::ZERO), Duration::ZERO);
}
