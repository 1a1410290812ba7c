//! The site that every gateway under test serves: certificates, a person, and our configuration.

use std::{
    fs, io,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use data_encoding::{BASE32_NOPAD, BASE64};
use rustls::{
    RootCertStore,
    pki_types::{CertificateDer, pem::PemObject},
};

use super::job::Addresses;
use crate::{
    auth::users::hash_password,
    clock,
    config::Secret,
    crypto,
    demo::{authority::Authority, folder::Folder},
};

/// A folder with what all gateways share, and one for each beside it; removed when dropped.
#[derive(Debug)]
pub(super) struct Site {
    folder: Folder,
    authority: Authority,
    password: String,
}

impl Site {
    /// Makes certificates and a person.
    ///
    /// # Errors
    ///
    /// When the folder cannot be used, or a certificate not be made.
    pub(super) fn new() -> Result<Self, Error> {
        let folder = Folder::prepare(None)?;
        let authority = Authority::generate(clock::wall())?;
        let p256 = authority.issue(&[GATEWAY, APP], &[])?;
        let rsa = authority.issue_rsa(&[GATEWAY, APP])?;
        for (name, issued) in [("p256", p256), ("rsa", rsa)] {
            let (chain, key) = (&issued.chain, &issued.key);
            folder.write(&format!("{name}.pem"), chain.as_bytes())?;
            folder.write(&format!("{name}.key"), key.as_bytes())?;
            let both = format!("{chain}{key}");
            folder.write(&format!("{name}.both"), both.as_bytes())?;
        }
        folder.write("ca.pem", authority.pem().as_bytes())?;
        let password = BASE32_NOPAD.encode(&crypto::random::<10>());
        let hash = hash_password(&Secret::new(password.clone().into_bytes()));
        folder.write("users", format!("{USER}:staff:{hash}\n").as_bytes())?;
        folder.write("policies/bench.cedar", POLICIES.as_bytes())?;
        // A peer that gives up root must still reach its own folder in here.
        open(folder.path())?;
        Ok(Self {
            folder,
            authority,
            password,
        })
    }

    /// A file of the site.
    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// An empty folder for one program.
    ///
    /// # Errors
    ///
    /// What the file system says.
    pub(super) fn fresh(&self, name: &str) -> io::Result<PathBuf> {
        let path = self.path(name);
        let _none = fs::remove_dir_all(&path);
        fs::create_dir(&path)?;
        open(&path)?;
        Ok(path)
    }

    /// What to trust.
    ///
    /// # Errors
    ///
    /// When the authority's certificate cannot be read.
    pub(super) fn roots(&self) -> Result<RootCertStore, Error> {
        let mut roots = RootCertStore::empty();
        let pem = self.authority.pem().as_bytes();
        roots.add(CertificateDer::from_pem_slice(pem)?)?;
        Ok(roots)
    }

    /// The person's name and password.
    pub(super) fn person(&self) -> (&str, &str) {
        (USER, &self.password)
    }

    /// The value of `Proxy-Authorization` for tunnels.
    pub(super) fn authorization(&self) -> String {
        let pair = format!("{USER}:{}", self.password);
        format!("Basic {}", BASE64.encode(pair.as_bytes()))
    }

    /// Writes the gateway's configuration, as an administrator would, with so many apps.
    ///
    /// # Errors
    ///
    /// What the file system says.
    pub(super) fn ravelin(
        &self,
        folder: &Path,
        [p256, rsa]: [SocketAddr; 2],
        origin: &Addresses,
        apps: usize,
    ) -> io::Result<PathBuf> {
        let Addresses {
            http,
            sink,
            source,
            echo,
        } = origin;
        let more: String = (1..apps)
            .map(|n| format!("[app.a{n}]\nhost = \"a{n}.apps.ravelin.test\"\npool = \"origin\"\n"))
            .collect();
        let text = format!(
            r#"host = "{GATEWAY}"
demo = true

[listener.public]
addresses = ["{p256}"]
certificates = ["p256"]
max_connections_per_source = 16000

[listener.rsa]
addresses = ["{rsa}"]
certificates = ["rsa"]

[certificate.p256]
chain = "../p256.pem"
key = "file:../p256.key"

[certificate.rsa]
chain = "../rsa.pem"
key = "file:../rsa.key"

[limits]
idle = "10min"

[login]
directories = ["people"]
browser_token = "2h"

[directory.people]
type = "users"
file = "../users"

[policy]
files = ["../policies/*.cedar"]

[network]
inside = ["127.0.0.0/8"]
allow = ["{http}", "{sink}", "{source}", "{echo}"]

[tunnel]
max_per_session = 10000
opens_per_second = 10000

[pool.origin]
nodes = ["http://{http}"]
kept_connections = 10000

[app.intranet]
host = "{APP}"
pool = "origin"
max_body = "10GiB"

{more}
[admin]
address = "127.0.0.1:0"
control = "control.sock"

[log]
access = "file:access.log"
level = "warn"
"#
        );
        let path = folder.join("ravelin.toml");
        fs::write(&path, text)?;
        Ok(path)
    }
}

fn open(folder: &Path) -> io::Result<()> {
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o711);
    fs::set_permissions(folder, mode)
}

/// The gateway's own name.
pub(super) const GATEWAY: &str = "gw.ravelin.test";
/// The app's.
pub(super) const APP: &str = "intranet.ravelin.test";
const USER: &str = "alice";

const POLICIES: &str = r#"@id("staff-open-every-app")
permit (principal in Group::"staff", action == Action::"open", resource);

@id("staff-reach-the-origin")
permit (principal in Group::"staff", action == Action::"tunnel", resource)
when { resource.host like "127.*" };

@id("nobody-reaches-payroll")
forbid (principal, action == Action::"tunnel", resource)
when { resource.host == "payroll.corp.test" };
"#;

/// Why there is no site.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// A certificate cannot be made.
    #[error("making a certificate")]
    Certificate(#[from] rcgen::Error),
    /// The folder cannot be used.
    #[error(transparent)]
    Folder(#[from] crate::demo::folder::Error),
    /// The authority's certificate cannot be read.
    #[error("reading a certificate")]
    Pem(#[from] rustls::pki_types::pem::Error),
    /// The folder cannot be opened to others.
    #[error("letting peers into the folder")]
    Permissions(#[from] io::Error),
    /// The authority's certificate cannot be trusted.
    #[error("trusting a certificate")]
    Trust(#[from] rustls::Error),
}
