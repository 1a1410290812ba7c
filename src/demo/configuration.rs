//! Writes what an administrator would: the demo's `ravelin.toml`, policies and user file.

use std::net::SocketAddr;

use super::{company::Company, facts::Person};

/// The configuration of the demo's gateway.
pub(super) fn ravelin(gateway: SocketAddr, admin: SocketAddr, company: &Company) -> String {
    let allowed: Vec<String> = company
        .reachable()
        .iter()
        .map(|(what, address)| format!("    \"{address}\",  # {what}\n"))
        .collect();
    let (allowed, dns) = (allowed.concat(), company.dns);
    let control = super::folder::CONTROL;
    let apps = apps(company);
    format!(
        r#"{HEADLINE}
# It is complete: change it, then look at it with `ravelin check -c`, or send the gateway a SIGHUP.

demo = true                            # what is around the gateway are stand-ins on loopback
host = "{HOST}"

[listener.public]
addresses = ["{gateway}"]
certificates = ["gw"]
tunnels = true

[certificate.gw]
chain = "certs/gw.pem"
key = "file:certs/gw.key"

[login]
title = "Example Corp"
directories = ["people"]

[directory.people]
type = "users"
file = "users"

[network]
inside = ["127.0.0.1/32"]
# A gateway refuses loopback. The stand-ins are there, so exactly they are allowed.
allow = [
{allowed}]

[dns]
servers = ["{dns}"]

{apps}
[tunnel]
# One person tries everything here, also a thousand tunnels at once.
max_per_session = 2000
opens_per_second = 2000

[policy]
files = ["policies/*.cedar"]

[admin]
address = "{admin}"
control = "{control}"

[log]
access = "file:access.log"
level = "warn"
"#
    )
}

/// Pools and apps: the stand-ins that are behind the gateway.
fn apps(company: &Company) -> String {
    let [xm1, xm2] = company.nodes.map(|node| node.port());
    let (intranet, store) = (company.intranet.port(), company.store.port());
    format!(
        r#"[pool.intranet]
nodes = ["http://intranet.{INSIDE}:{intranet}"]
check = {{ type = "http", path = "/hello", expect_status = [200], interval = "2s", timeout = "1s" }}

[pool.storefront]
nodes = ["https://store.{INSIDE}:{store}"]
ca = "certs/ca.pem"
check = {{ type = "http", path = "/", expect_status = [200, 302], interval = "2s", timeout = "1s" }}

[pool.xenmobile]
nodes = ["https://xm1.{INSIDE}:{xm1}", "https://xm2.{INSIDE}:{xm2}"]
ca = "certs/ca.pem"
tls_name = "xm.{OUTSIDE}"
strategy = "round-robin"
check = {{ type = "http", path = "/zdm/cxf/public/getserverinfo", expect_status = [200], expect_body = "serverInfo", interval = "2s", timeout = "1s" }}
persistence = {{ cookie = "ACNODEID", idle = "8h" }}

[app.intranet]
host = "intranet.{OUTSIDE}"
pool = "intranet"

[app.storefront]
host = "store.{OUTSIDE}"
pool = "storefront"

[app.xenmobile]
host = "xm.{OUTSIDE}"
pool = "xenmobile"
path_characters = ";"
"#
    )
}

/// Who may do what in the demo.
pub(super) fn policies(intranet: SocketAddr) -> String {
    let port = intranet.port();
    format!(
        r#"// What no policy permits is denied; a forbid wins over every permit.

@id("sales-open-every-app")
permit (principal in Group::"sales", action == Action::"open", resource);

@id("contractors-open-the-store")
permit (
    principal in Group::"contractors",
    action == Action::"open",
    resource == App::"storefront"
);

@id("sales-reach-the-intranet")
permit (principal in Group::"sales", action == Action::"tunnel", resource)
when {{ resource.host == "intranet.{INSIDE}" && resource.port == {port} }};

@id("nobody-reaches-payroll")
forbid (principal, action == Action::"tunnel", resource)
when {{ resource.host == "payroll.{INSIDE}" }};
"#
    )
}

/// The user file: `name:groups:hash`, one person a line.
pub(super) fn users(people: &[(&Person, String)]) -> String {
    people
        .iter()
        .map(|(person, hash)| format!("{}:{}:{hash}\n", person.name, person.groups.join(",")))
        .collect()
}

/// The first line of every configuration that a demo wrote; it marks a demo's folder.
pub(super) const HEADLINE: &str = "# Written by `ravelin demo`.";

/// The gateway's own name.
pub(super) const HOST: &str = "gw.ravelin.test";

/// The domain of the stand-ins.
pub(super) const INSIDE: &str = "corp.test";

/// The domain of the gateway and its apps.
pub(super) const OUTSIDE: &str = "ravelin.test";
