//! What a person or a program needs to know to use the demo: the contents of `demo.json`.

use std::{net::SocketAddr, path::PathBuf};

use serde::Serialize;

/// The facts, in the shape of `demo.json`.
#[derive(Debug, Serialize)]
pub(super) struct Facts {
    pub(super) gateway: SocketAddr,
    pub(super) host: &'static str,
    pub(super) ca: PathBuf,
    pub(super) config: PathBuf,
    /// The first may use every app and the allowed target.
    pub(super) users: Vec<Person>,
    pub(super) apps: Apps,
    pub(super) tunnel_targets: Targets,
    pub(super) sta: String,
    pub(super) admin: String,
    pub(super) control: PathBuf,
}

/// Somebody who can log in.
#[derive(Debug, Serialize)]
pub(super) struct Person {
    pub(super) name: &'static str,
    pub(super) password: String,
    pub(super) groups: Vec<&'static str>,
}

/// Addresses of the apps, as devices use them.
#[derive(Debug, Serialize)]
pub(super) struct Apps {
    pub(super) intranet: String,
    pub(super) storefront: String,
    pub(super) xenmobile: String,
}

/// Where tunnels lead, `host:port`.
#[derive(Debug, Serialize)]
pub(super) struct Targets {
    pub(super) allowed: String,
    pub(super) denied: String,
}
