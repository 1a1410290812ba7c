//! Single stages in memory and on one core: decision, session, route, node.

use std::{
    hint::black_box,
    io,
    net::{IpAddr, Ipv4Addr},
    path::Path,
    sync::Arc,
    time::Duration,
};

use super::plan::Micro;
use crate::{
    Config,
    auth::Identity,
    balance::Pool,
    clock,
    config::Files,
    crypto::MasterKey,
    demo::folder::Folder,
    permit::Target,
    policy::{Policy, Principal},
    route::Routes,
    session::{Class, Sessions},
};

/// What a stage costs for one request, in µs.
///
/// # Errors
///
/// When its world cannot be set up.
pub(super) fn stage(stage: Micro) -> io::Result<f64> {
    match stage {
        Micro::Pick => pick(),
        Micro::PolicyAgain => policy(false),
        Micro::PolicyFirst => policy(true),
        Micro::Route => route(),
        Micro::Session => session(10_000),
    }
}

/// Looks a browser's token up among so many sessions.
///
/// # Errors
///
/// When its world cannot be set up.
pub(super) fn session(sessions: usize) -> io::Result<f64> {
    let store = Sessions::new(&config()?, &MasterKey::generate());
    let now = clock::now();
    let mut token = String::new();
    for number in 0..sessions {
        let identity = identity(&format!("user{number}"));
        if let Ok(session) = store.open(identity, Class::Browser, SOURCE, now) {
            token = store.browser_token(&session, HOST);
        }
    }
    Ok(each(|| store.find_browser(black_box(&token), HOST, now)))
}

/// Among a thousand policies, by somebody whom nobody has asked about, or who was asked before.
fn policy(first: bool) -> io::Result<f64> {
    let folder = Folder::prepare(None).map_err(io::Error::other)?;
    let text: String = (0..1000)
        .map(|n| {
            format!(
                "permit (principal in Group::\"group{n}\", action == Action::\"tunnel\", resource)\n\
                 when {{ resource.host == \"host{n}.corp.test\" && resource.port == 443 }};\n"
            )
        })
        .collect();
    let file = folder.write("many.cedar", text.as_bytes());
    let policy = Policy::load(&[file.map_err(io::Error::other)?])
        .map_err(|problems| io::Error::other(format!("{problems:?}")))?;
    let target = Target::parse("host7.corp.test:443").map_err(io::Error::other)?;
    let (identity, known) = (identity("alice"), Arc::from("S-0"));
    let mut number = 0_u64;
    Ok(each(|| {
        number += 1;
        let session = if first {
            Arc::from(format!("S-{number}"))
        } else {
            Arc::clone(&known)
        };
        let principal = Principal {
            session: &session,
            identity: &identity,
        };
        policy
            .judge_as(principal, SOURCE, black_box(&target))
            .is_ok()
    }))
}

fn route() -> io::Result<f64> {
    let routes = Routes::new(&config()?.apps);
    Ok(each(|| {
        routes
            .find(black_box("apps.example.com"), black_box("/Citrix/Web"))
            .is_some()
    }))
}

fn pick() -> io::Result<f64> {
    let config = config()?;
    let pool = config
        .pools
        .values()
        .find(|pool| &*pool.name == "xenmobile");
    let pool = pool.ok_or_else(|| io::Error::other("the example has lost its pool"))?;
    let pool = Pool::new(Arc::clone(pool));
    let now = clock::now();
    Ok(each(|| pool.pick(None, &[], now).is_ok()))
}

/// Time of one call, in µs: of batches that are long enough for the clock.
fn each<T>(mut call: impl FnMut() -> T) -> f64 {
    for _warm in 0..BATCH {
        black_box(call());
    }
    let (mut calls, start) = (0.0, clock::now());
    while start.elapsed() < LONG_ENOUGH {
        for _call in 0..BATCH {
            black_box(call());
        }
        calls += f64::from(BATCH);
    }
    start.elapsed().as_secs_f64() * 1e6 / calls
}

fn config() -> io::Result<Config> {
    let text = include_str!("../../examples/ravelin.toml");
    Config::parse(text, Path::new("ravelin.toml"), Files::Unchecked)
        .map_err(|problems| io::Error::other(problems.to_string()))
}

fn identity(user: &str) -> Identity {
    Identity {
        user: user.into(),
        directory: "corp".into(),
        groups: [Arc::from("group7"), Arc::from("staff")].into(),
    }
}

const SOURCE: IpAddr = IpAddr::V4(Ipv4Addr::new(198, 51, 100, 7));
const HOST: &str = "gw.example.com";
const BATCH: u32 = 200;
const LONG_ENOUGH: Duration = Duration::from_millis(200);
