//! What the file means: references become what they refer to, and all that is wrong is reported.
//!
//! A part with a problem is left out or keeps its default, so that the other parts are looked at
//! all the same; a `Config` is made only when there was no problem at all.

mod backend;
mod directory;
mod external;
mod front;
mod operation;

use std::{net::IpAddr, ops::RangeInclusive, sync::Arc, time::Duration};

use super::{
    Config, Files, Limits, Login, Network, Problems, Source, Tls, Tunnel,
    file::{self, File},
    load::Origin,
    problem::nearest,
    schema::{is_at_or_below, quoted},
    tree::join,
    value::{Ip, Period, Size},
};

/// Makes the configuration, or adds what is wrong to what was found before.
pub(super) fn resolve(
    file: File,
    origin: Origin,
    files: Files,
    problems: Problems,
) -> Result<Config, Problems> {
    Resolver {
        demo: file.demo,
        files,
        origin,
        problems,
        warnings: Problems::new(),
    }
    .config(file)
}

struct Resolver {
    demo: bool,
    files: Files,
    origin: Origin,
    problems: Problems,
    warnings: Problems,
}

impl Resolver {
    #[expect(
        clippy::too_many_lines,
        reason = "one line for each table, in the order of the file"
    )]
    fn config(mut self, file: File) -> Result<Config, Problems> {
        let shared_key = file.shared_key.as_ref().and_then(|name| {
            let secret = self.secret("shared_key", name)?;
            if self.files == Files::Checked && secret.expose().len() < SHARED_KEY_BYTES {
                self.problem("shared_key", "has fewer than 32 bytes");
            }
            Some(secret)
        });
        let host: Option<Arc<str>> = file.host.map(|host| host.0.into());
        let network = self.network(file.network.unwrap_or_default());
        let listeners = self.listeners(file.listener, file.certificate);
        let tls = Tls {
            tls12: file.tls.tls12,
            ticket_lifetime: file.tls.ticket_lifetime.0,
            reload_interval: file.tls.reload_interval.0,
        };
        let limits = self.limits(&file.limits);
        let directories = self.directories(
            file.directory,
            file.login.directories.as_deref(),
            &network.source,
        );
        let login = self.login(file.login);
        let pools = self.pools(file.pool, &network);
        let apps = self.apps(file.app, &pools, host.as_ref());
        let dns = self.dns(file.dns, &network.source, &pools, &directories);
        let tunnel = self.tunnel(&file.tunnel);
        let policy = self.policy(file.policy.unwrap_or_default());
        let admin = self.admin(file.admin, &listeners);
        let log = self.log(file.log);
        let demo = file.demo;

        let Self {
            origin,
            mut problems,
            mut warnings,
            ..
        } = self;
        let Some(host) = host.filter(|_| problems.is_empty()) else {
            if problems.is_empty() {
                problems.push(origin.problem("host", "is missing".to_owned()));
            }
            problems.sort();
            return Err(problems);
        };
        warnings.sort();
        Ok(Config {
            path: origin.sources.path(0),
            host,
            demo,
            listeners,
            tls,
            shared_key,
            limits,
            login,
            directories,
            network,
            dns,
            pools,
            apps,
            tunnel,
            policy,
            admin,
            log,
            warnings,
            origin,
        })
    }

    fn limits(&mut self, file: &file::Limits) -> Limits {
        let head_bytes = self.bytes("limits.head_bytes", file.head_bytes, 1 << 10, 1 << 20);
        let target_bytes = self.bytes("limits.target_bytes", file.target_bytes, 1 << 8, 1 << 20);
        if target_bytes > head_bytes {
            self.cross_check(
                "limits.target_bytes",
                &["limits.head_bytes"],
                "must not be more than head_bytes, of which it is a part",
            );
        }
        let mut window = |key, size| {
            // The least is what HTTP/2 begins with (RFC 9113, section 6.9.2), the most what its
            // windows can hold.
            let bytes = self.bytes(key, size, 65_535, i32::MAX.unsigned_abs().into());
            u32::try_from(bytes).unwrap_or(u32::MAX)
        };
        let h2_stream_window = window("limits.h2_stream_window", file.h2_stream_window);
        let h2_connection_window = window("limits.h2_connection_window", file.h2_connection_window);
        Limits {
            handshake: file.handshake.0,
            head: file.head.0,
            idle: file.idle.0,
            body_progress: file.body_progress.0,
            head_bytes,
            head_fields: file.head_fields,
            target_bytes,
            drain_bytes: file.drain_bytes.0,
            h2_streams: file.h2_streams,
            h2_stream_window,
            h2_connection_window,
            h2_resets: file.h2_resets,
            drain: file.drain.0,
        }
    }

    fn login(&mut self, file: file::Login) -> Login {
        if file.basic_memory.0 > MAX_BASIC_MEMORY {
            self.problem("login.basic_memory", "must not be more than 5min");
        }
        if file.session_idle.0 > file.session_absolute.0 {
            self.cross_check(
                "login.session_idle",
                &["login.session_absolute"],
                "must not be longer than session_absolute",
            );
        }
        if file.browser_token.0 > file.session_absolute.0 {
            self.cross_check(
                "login.browser_token",
                &["login.session_absolute"],
                "must not be longer than session_absolute",
            );
        }
        Login {
            title: file.title.0.into(),
            step: file.step.0,
            attempts: file.attempts,
            attempts_window: file.attempts_window.0,
            shared_sources: file.shared_sources.into_iter().map(|n| n.0).collect(),
            checks_at_once: file.checks_at_once,
            check_queue: file.check_queue,
            session_idle: file.session_idle.0,
            session_absolute: file.session_absolute.0,
            device_token: file.device_token.0,
            browser_token: file.browser_token.0,
            basic_memory: file.basic_memory.0,
            max_sessions: file.max_sessions,
            max_sessions_per_user: file.max_sessions_per_user,
        }
    }

    fn network(&mut self, file: file::Networks) -> Network {
        for (index, allowed) in file.allow.iter().enumerate() {
            let key = format!("network.allow[{index}]");
            if !self.demo && allowed.0.ip().to_canonical().is_loopback() {
                self.problem(
                    &key,
                    "is on loopback: only a demo may reach into the gateway",
                );
            }
            if allowed.0.port() == 0 {
                self.problem(&key, "has port 0: allow one port");
            }
        }
        let tunnel_sources = file
            .tunnel_source
            .into_iter()
            .enumerate()
            .filter_map(|(index, entry)| {
                let key = format!("network.tunnel_source[{index}].source");
                let source = self.source(&key, entry.source.as_deref(), &Source::default());
                Some((entry.network?.0, source))
            })
            .collect();
        Network {
            inside: file
                .inside
                .into_iter()
                .flatten()
                .map(|network| network.0)
                .collect(),
            allow: file
                .allow
                .into_iter()
                .map(|mut address| {
                    address.0.set_ip(address.0.ip().to_canonical());
                    address.0
                })
                .collect(),
            public_addresses: file.public_addresses.into_iter().map(|ip| ip.0).collect(),
            source: self.source("network.source", Some(&file.source), &Source::default()),
            tunnel_sources,
            connect_timeout: file.connect_timeout.0,
            attempt_delay: file.attempt_delay.0,
            kept_idle: file.kept_idle.0,
            keepalive: self.keepalive("network.keepalive", &file.keepalive),
            mss: file.mss,
            user_timeout: file.user_timeout.0,
        }
    }

    fn tunnel(&mut self, file: &file::Tunnel) -> Tunnel {
        let idle_by_port = file
            .idle_by_port
            .iter()
            .filter_map(|(port, idle)| Some((port.parse().ok()?, idle.0)))
            .collect();
        Tunnel {
            idle: file.idle.0,
            half_closed: file.half_closed.0,
            absolute: file.absolute.0,
            idle_by_port,
            max_per_session: file.max_per_session,
            opens_per_second: file.opens_per_second,
            block: self.bytes("tunnel.block", file.block, 4 << 10, 1 << 20),
            ports: file.ports.clone(),
        }
    }

    /// Addresses to start from, or those that hold when none are written.
    fn source(&mut self, key: &str, written: Option<&[Ip]>, otherwise: &Source) -> Source {
        let Some(written) = written else {
            return otherwise.clone();
        };
        for (index, ip) in written.iter().enumerate() {
            if ip.0.is_unspecified() || ip.0.is_multicast() {
                let key = format!("{key}[{index}]");
                self.problem(&key, "is no address that a connection can start from");
            }
        }
        Source(
            written
                .iter()
                .map(|ip| ip.0)
                .collect::<Vec<IpAddr>>()
                .into(),
        )
    }

    /// A keepalive that the kernel takes: whole seconds.
    fn keepalive(&mut self, key: &str, written: &Period) -> Duration {
        if !KEEPALIVE.contains(&written.0) {
            self.problem(key, "must be from 1s to 9h");
        }
        written.0
    }

    /// A size within bounds.
    fn bytes(&mut self, key: &str, size: Size, least: u64, most: u64) -> usize {
        if !(least..=most).contains(&size.0) {
            let message = format!("must be from {} to {}", Size(least), Size(most));
            self.problem(key, message);
        }
        usize::try_from(size.0.clamp(least, most)).unwrap_or(usize::MAX)
    }

    /// A name of something that must stand in the file, as `pool` and `intranet`.
    fn known<'a>(
        &mut self,
        key: &str,
        table: &str,
        name: &str,
        known: impl Iterator<Item = &'a str>,
    ) {
        if self.origin.has(&join(table, name)) {
            return;
        }
        let known: Vec<&str> = known.collect();
        let mut problem = self.origin.problem(
            key,
            format!(
                "{} is unknown: there is no [{}]",
                quoted(name),
                join(table, name)
            ),
        );
        problem.meant = nearest(name, known.iter().copied()).map(|meant| quoted(&meant));
        self.problems.push(problem);
    }

    /// Adds a problem, unless that key has one: its value is a default then.
    fn problem(&mut self, key: &str, message: impl Into<String>) {
        if self.good(key) {
            let problem = self.origin.problem(key, message.into());
            self.problems.push(problem);
        }
    }

    /// Adds a problem about two keys, unless the others have one.
    fn cross_check(&mut self, key: &str, others: &[&str], message: &str) {
        if others.iter().all(|other| self.good(other)) {
            self.problem(key, message);
        }
    }

    fn warn(&mut self, key: &str, message: impl Into<String>) {
        let warning = self.origin.problem(key, message.into());
        self.warnings.push(warning);
    }

    /// There is no problem with a key, nor with anything in its table.
    fn good(&self, key: &str) -> bool {
        !self
            .problems
            .iter()
            .any(|problem| is_at_or_below(&problem.key, key))
    }
}

const SHARED_KEY_BYTES: usize = 32;

/// Longer, and a password that was changed would open doors for too long.
const MAX_BASIC_MEMORY: Duration = Duration::from_secs(5 * 60);

/// The kernel's most is 32767 s.
const KEEPALIVE: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(9 * 3600);
