//! What the operator sees: the admin address, the control socket, the log.

use std::sync::Arc;

use super::Resolver;
use crate::config::{Admin, Listener, Log, LogOutput, file};

impl Resolver {
    pub(super) fn admin(&mut self, file: file::Admin, listeners: &[Arc<Listener>]) -> Admin {
        let key = "admin.address";
        let address = file.address.map(|address| address.0);
        if let Some(address) = address {
            let ip = address.ip();
            let public = listeners
                .iter()
                .flat_map(|listener| &listener.addresses)
                .any(|device| device.ip() == ip && !ip.is_loopback());
            if ip.is_unspecified() {
                self.problem(key, "must be one address: it is not for everybody");
            } else if self.demo && !ip.is_loopback() {
                self.problem(key, "is not on loopback, and this is a demo");
            } else if public {
                self.problem(
                    key,
                    "is an address on which devices connect: use an inner one",
                );
            } else if !ip.is_loopback() {
                self.warn(
                    key,
                    "is not on loopback: whoever reaches it sees health and metrics",
                );
            }
        }
        let control = file.control.map(|path| {
            let path = self.path("admin.control", &path.0);
            if path.as_os_str().len() > MAX_SOCKET_PATH {
                self.problem(
                    "admin.control",
                    "is longer than the path of a socket may be",
                );
            }
            path
        });
        Admin {
            address,
            hosts: file.hosts.into_iter().map(|host| host.0).collect(),
            control,
        }
    }

    pub(super) fn log(&mut self, file: file::Log) -> Log {
        let access = match file.access.0 {
            LogOutput::File(path) => {
                let path = self.path("log.access", &path);
                self.directory_of("log.access", &path);
                LogOutput::File(path)
            }
            LogOutput::Off => LogOutput::Off,
            LogOutput::Stdout => LogOutput::Stdout,
        };
        Log {
            access,
            level: file.level.0,
        }
    }
}

/// `sun_path` holds 108 bytes with the final zero.
const MAX_SOCKET_PATH: usize = 107;
