//! A small company: an intranet, a payroll site that nobody may reach, DNS, and the gateway.

use std::{net::SocketAddr, path::PathBuf};

use super::{
    client::{Curl, curl},
    gateway::{Gateway, Site, policy},
    peers::{self, Peer},
};

/// The company around one gateway.
pub(crate) struct World {
    pub(crate) gateway: Gateway,
    pub(crate) intranet: Peer,
    pub(crate) payroll: Peer,
    /// Answers for `corp.test`; ended with the world.
    _dns: Peer,
    pub(crate) site: Site,
}

impl World {
    /// alice (sales) may reach the intranet by tunnel and as an app; bob may reach nothing.
    pub(crate) fn new() -> Self {
        Self::with("")
    }

    /// The same, with more configuration.
    pub(crate) fn with(more: &str) -> Self {
        Self::build(&[], |_| more.to_owned())
    }

    /// The same, with configuration that depends on the site, and more stand-ins on loopback.
    pub(crate) fn build(allow: &[SocketAddr], more: impl FnOnce(&Site) -> String) -> Self {
        let site = Site::new();
        let intranet = peers::nginx(INTRANET, None);
        let payroll = peers::nginx("location / { return 200 \"salaries\"; }", None);
        let dns = peers::dns(&[
            ("intranet.corp.test", "127.0.0.1"),
            ("payroll.corp.test", "127.0.0.1"),
            ("metadata.corp.test", "169.254.169.254"),
            ("mapped.corp.test", "::ffff:127.0.0.1"),
            ("elsewhere.corp.test", "192.0.2.1"),
        ]);
        policy(&site, POLICY);
        let more = more(&site);
        let allow: String = allow
            .iter()
            .map(|address| format!(", \"{address}\""))
            .collect();
        let toml = format!(
            "{base}\n[network]\ninside = [\"127.0.0.0/8\", \"169.254.0.0/16\"]\nallow = [\"{i}\", \"{p}\"{allow}]\n\
             [dns]\nservers = [\"{d}\"]\n\
             [pool.intranet]\nnodes = [\"http://{i}\"]\n\
             [app.intranet]\nhost = \"intranet.apps.test\"\npool = \"intranet\"\n{more}\n",
            base = site.base(),
            i = intranet.address,
            p = payroll.address,
            d = dns.address,
        );
        let gateway = Gateway::start(&site, &toml);
        Self {
            gateway,
            intranet,
            payroll,
            _dns: dns,
            site,
        }
    }

    /// The certificate that signs everything.
    pub(crate) fn authority(&self) -> PathBuf {
        self.site.path("ca.pem")
    }

    /// Runs curl as a device.
    pub(crate) fn curl(&self, arguments: &[&str]) -> Curl {
        curl(self.gateway.address, &self.authority(), arguments)
    }

    /// Runs curl through the tunnel, with Basic.
    pub(crate) fn tunnel(&self, credential: &str, url: &str) -> Curl {
        let proxy = self.url("gw.ravelin.test");
        self.curl(&[
            "--proxy",
            &proxy,
            "--proxytunnel",
            "--proxy-user",
            credential,
            url,
        ])
    }

    /// `https://HOST:PORT` of the gateway.
    pub(crate) fn url(&self, host: &str) -> String {
        format!("https://{host}:{}", self.gateway.address.port())
    }

    /// `http://intranet.corp.test:PORT/`: what tunnels are for.
    pub(crate) fn inside(&self) -> String {
        format!(
            "http://intranet.corp.test:{}/",
            self.intranet.address.port()
        )
    }
}

const INTRANET: &str = r#"
location / { return 200 "welcome to the intranet\n"; }
location /headers { default_type text/plain; return 200 "host=$http_host xff=$http_x_forwarded_for proto=$http_x_forwarded_proto auth=$http_authorization proxy=$http_proxy_authorization cookie=$http_cookie via=$http_x_citrix_via\n"; }
location /files/ { }
location = /upload { dav_methods PUT; }
"#;

const POLICY: &str = r#"
@id("sales-tunnel")
permit (principal in Group::"sales", action == Action::"tunnel", resource)
when { resource.host like "*.corp.test" || resource.host like "127.*" };

@id("no-payroll")
forbid (principal, action == Action::"tunnel", resource)
when { resource.host == "payroll.corp.test" };

@id("sales-intranet")
permit (principal in Group::"sales", action == Action::"open", resource == App::"intranet");
"#;
