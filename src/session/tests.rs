//! Tests of the session store.

use super::*;

const MINUTE: Duration = Duration::from_secs(60);
const HOST: &str = "gw.example.com";

fn store(max: usize, max_per_user: usize) -> Sessions {
    let master = MasterKey::generate();
    let limits = Limits {
        idle: MINUTE * 30,
        absolute: MINUTE * 480,
        device_token: MINUTE * 10_080,
        browser_token: MINUTE * 5,
        basic_memory: MINUTE * 5,
        max,
        max_per_user,
    };
    Sessions {
        limits: ArcSwap::from_pointee(limits),
        hash: KeyedHash::new(&master.derive("session credentials")),
        tokens: Tokens::new(HOST, &master),
        devices: Devices::new(&master.derive("device tokens")),
        basic: Memory::new(max),
        handovers: Memory::new(MAX_HANDOVERS),
        by_key: std::array::from_fn(|_| Mutex::default()),
        registry: Mutex::default(),
    }
}

fn person(user: &str) -> Identity {
    Identity {
        user: user.into(),
        directory: "corp".into(),
        groups: Arc::from([]),
    }
}

fn source() -> IpAddr {
    IpAddr::from([192, 0, 2, 1])
}

fn open(store: &Sessions, user: &str, now: Instant) -> Result<Arc<Session>, Full> {
    store.open(person(user), Class::Browser, source(), now)
}

#[test]
fn a_browser_finds_its_session_on_the_host_of_its_token_alone() {
    let store = store(10, 10);
    let now = clock::now();
    let session = open(&store, "alice", now).unwrap();
    let token = store.browser_token(&session, HOST);

    let found = store.find_browser(&token, HOST, now).unwrap();
    assert!(Arc::ptr_eq(&found.session, &session));
    assert_eq!(found.renewed, None);
    assert!(store.find_browser(&token, "app.example.com", now).is_none());
}

#[test]
fn an_idle_session_ends_and_a_used_or_busy_one_does_not() {
    let store = store(10, 10);
    let start = clock::now();
    let session = open(&store, "alice", start).unwrap();
    let token = store.browser_token(&session, HOST);
    let at = |minutes| start + MINUTE * minutes;

    assert!(store.find_browser(&token, HOST, at(29)).is_some());
    store.sweep(at(58));
    assert!(!session.ended().is_cancelled());
    let busy = session.usage().begin();
    store.sweep(at(200));
    drop(busy);
    assert!(store.find_browser(&token, HOST, at(229)).is_some());
    store.sweep(at(259));
    assert!(session.ended().is_cancelled());
    assert!(store.find_browser(&token, HOST, at(259)).is_none());
    assert!(store.list().is_empty());
}

#[test]
fn a_session_ends_at_its_absolute_limit_however_busy() {
    let store = store(10, 10);
    let start = clock::now();
    let session = open(&store, "alice", start).unwrap();
    let _busy = session.usage().begin();

    store.sweep(start + MINUTE * 480);
    assert!(session.ended().is_cancelled());
}

#[test]
fn the_oldest_session_of_a_person_ends_when_there_are_too_many() {
    let store = store(10, 2);
    let now = clock::now();
    let first = open(&store, "alice", now).unwrap();
    let second = open(&store, "alice", now).unwrap();
    let other = open(&store, "bob", now).unwrap();
    let third = open(&store, "alice", now).unwrap();

    assert!(first.ended().is_cancelled());
    for session in [second, other, third] {
        assert!(!session.ended().is_cancelled());
    }
    assert_eq!(store.list().len(), 3);
}

#[test]
fn no_session_is_made_beyond_the_limit_of_all() {
    let store = store(2, 10);
    let now = clock::now();
    let first = open(&store, "alice", now).unwrap();
    open(&store, "bob", now).unwrap();

    assert_eq!(open(&store, "carol", now).err(), Some(Full));
    assert!(store.end(first.id()));
    open(&store, "carol", now).unwrap();
}

#[test]
fn a_kill_ends_a_session_and_what_runs_under_it() {
    let store = store(10, 10);
    let now = clock::now();
    let session = open(&store, "alice", now).unwrap();
    let token = store.browser_token(&session, HOST);

    assert!(store.end(session.id()));
    assert!(session.ended().is_cancelled());
    assert!(store.find_browser(&token, HOST, now).is_none());
    assert!(!store.end(session.id()));
}

#[test]
fn a_basic_credential_keeps_its_session_when_it_is_checked_again() {
    let store = store(10, 10);
    let now = clock::now();
    let password = Secret::new(b"secret".to_vec());
    let key = store.basic_key("alice", password.expose(), "public");
    assert!(store.find_basic(&key, now).is_none());
    let session = store
        .open_basic(&key, person("alice"), source(), now)
        .unwrap();

    assert!(store.find_basic(&key, now + MINUTE * 4).is_some());
    let later = now + MINUTE * 5;
    assert!(store.find_basic(&key, later).is_none());
    let again = store
        .open_basic(&key, person("alice"), source(), later)
        .unwrap();
    assert!(Arc::ptr_eq(&session, &again));
    let elsewhere = store.basic_key("alice", password.expose(), "inner");
    assert!(store.find_basic(&elsewhere, later).is_none());
    store.end(session.id());
    assert!(store.find_basic(&key, later).is_none());
}

#[test]
fn a_device_token_outlives_its_sessions_until_it_ends() {
    let store = store(10, 10);
    let now = clock::now();
    let (token, facts) = store.issue_device(person("alice"), "phone", now);
    assert!(token.expose_text().unwrap().starts_with("rvt_"));
    assert_eq!(token.expose().len(), 4 + 43);

    let find = |at| store.find_device(&token, source(), at).map(Result::unwrap);
    let first = find(now).unwrap();
    assert_eq!(first.class(), Class::Device);
    assert!(Arc::ptr_eq(&first, &find(now + MINUTE).unwrap()));
    let later = now + MINUTE * 60;
    store.sweep(later);
    assert!(first.ended().is_cancelled());
    let second = find(later).unwrap();
    assert!(!Arc::ptr_eq(&first, &second));
    assert!(find(facts.until).is_none());
}

#[test]
fn a_revoked_device_token_ends_its_session() {
    let store = store(10, 10);
    let now = clock::now();
    let (token, facts) = store.issue_device(person("alice"), "phone", now);
    let session = store.find_device(&token, source(), now).unwrap().unwrap();

    assert!(!store.revoke_device(&person("bob"), &facts.id));
    assert!(store.revoke_device(&person("alice"), &facts.id));
    assert!(session.ended().is_cancelled());
    assert!(store.find_device(&token, source(), now).is_none());
}

#[test]
fn killing_a_device_session_or_a_user_revokes_the_token() {
    let store = store(10, 10);
    let now = clock::now();
    let (first, _) = store.issue_device(person("alice"), "phone", now);
    let session = store.find_device(&first, source(), now).unwrap().unwrap();
    store.end(session.id());
    assert!(store.find_device(&first, source(), now).is_none());

    let (second, _) = store.issue_device(person("alice"), "phone", now);
    let browser = open(&store, "alice", now).unwrap();
    assert_eq!(store.end_user("alice"), 1);
    assert!(browser.ended().is_cancelled());
    assert!(store.find_device(&second, source(), now).is_none());
}

#[test]
fn unknown_device_tokens_are_nothing() {
    let store = store(10, 10);
    for text in ["", "rvt_", "rvt_AAAA", &"rvt_".repeat(100_000)] {
        let secret = Secret::new(text.as_bytes().to_vec());
        assert!(store.find_device(&secret, source(), clock::now()).is_none());
    }
}

#[test]
fn a_handover_is_taken_once_and_in_time() {
    let store = store(10, 10);
    let now = clock::now();
    let session = open(&store, "alice", now).unwrap();
    let hand_over = || {
        let handover = Handover {
            session: Arc::clone(&session),
            host: "app.example.com".into(),
            browser: [1; 16],
            path: "/".into(),
        };
        store.hand_over(handover, now)
    };

    let code = hand_over();
    assert!(store.take_over(&code, now).is_some());
    assert!(store.take_over(&code, now).is_none());
    let code = hand_over();
    assert!(store.take_over(&code, now + HANDOVER).is_none());
    let code = hand_over();
    store.end(session.id());
    assert!(store.take_over(&code, now).is_none());
}

#[test]
fn a_login_refused_for_lack_of_room_ends_no_other() {
    let now = clock::now();
    let mut store = store(3, 2);
    let first = open(&store, "alice", now).unwrap();
    open(&store, "alice", now).unwrap();
    // A reload with less room.
    store.limits = self::store(1, 2).limits;

    assert_eq!(open(&store, "alice", now).err(), Some(Full));
    assert!(!first.ended().is_cancelled());
    assert_eq!(store.list().len(), 2);
}

#[test]
fn the_end_of_all_takes_tokens_too_that_nobody_uses_now() {
    let store = store(10, 10);
    let now = clock::now();
    let session = open(&store, "alice", now).unwrap();
    let (token, _facts) = store.issue_device(person("bob"), "phone", now);

    assert_eq!(store.end_all(), 1);
    assert!(session.ended().is_cancelled());
    assert!(store.find_device(&token, source(), now).is_none());
}
