//! Starts the gateway and real servers around it, on ports that the kernel chose.

pub(crate) mod certificates;
pub(crate) mod client;
pub(crate) mod device;
pub(crate) mod dmz;
pub(crate) mod gateway;
pub(crate) mod namespace;
pub(crate) mod peers;
pub(crate) mod script;
pub(crate) mod targets;
pub(crate) mod wire;
pub(crate) mod world;

use std::{
    net::{SocketAddr, TcpListener, TcpStream},
    time::{Duration, Instant},
};

/// How long a condition may take before a test gives up: generous, since machines are busy.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

/// Waits until `ready` gives something.
///
/// # Panics
///
/// When it has not by the deadline.
pub(crate) fn eventually<T>(what: &str, mut ready: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + DEADLINE;
    loop {
        if let Some(value) = ready() {
            return value;
        }
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// A loopback address whose port nobody has: for programs that cannot take port 0.
pub(crate) fn free_address() -> SocketAddr {
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    socket.local_addr().unwrap()
}

/// Waits until something accepts there.
pub(crate) fn wait_for_port(address: SocketAddr) {
    eventually(&format!("a server on {address}"), || {
        TcpStream::connect_timeout(&address, Duration::from_secs(1)).ok()
    });
}
