//! The whole gateway, seen from outside: the program itself, real servers, real clients.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice,
    reason = "a test that cannot set up its world must stop"
)]
#![expect(
    clippy::disallowed_methods,
    clippy::print_stderr,
    reason = "tests are the other side: they have clocks and tasks of their own, and say why they fail"
)]

mod attack;
mod bench;
mod bench_load;
mod browser;
mod connect;
mod demo;
mod dmz;
mod dns;
mod drain;
mod http1;
mod http2;
mod layout;
mod ldap;
mod load;
mod login;
mod reload;
mod reverse_proxy;
mod session;
mod support;
mod surface;
mod tls;
mod upstream;
mod websocket;
