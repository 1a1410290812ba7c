//! Servers that others wrote: nginx, slapd, dnsmasq, HAProxy, Python.

use std::{
    fs,
    net::SocketAddr,
    path::Path,
    process::{Child, Command, Stdio},
};

use tempfile::TempDir;

use super::{certificates::Pair, free_address, wait_for_port};

/// A program that runs until it is dropped, with a directory of its own.
pub(crate) struct Peer {
    child: Child,
    directory: TempDir,
    /// Where it listens.
    pub(crate) address: SocketAddr,
}

impl Peer {
    /// Ends it at once, as a crash would.
    pub(crate) fn kill(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }

    /// Its directory.
    pub(crate) fn directory(&self) -> &Path {
        self.directory.path()
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Where a server runs.
pub(crate) trait Machine {
    /// Where it shall listen.
    fn address(&self) -> SocketAddr;
    /// A command that runs there.
    fn command(&self, program: &str) -> Command;
    /// Waits until something listens.
    fn wait(&self, address: SocketAddr);
}

/// This machine, on loopback.
struct Loopback;

impl Machine for Loopback {
    fn address(&self) -> SocketAddr {
        free_address()
    }

    fn command(&self, program: &str) -> Command {
        Command::new(program)
    }

    fn wait(&self, address: SocketAddr) {
        wait_for_port(address);
    }
}

fn start(
    machine: &impl Machine,
    program: &str,
    prepare: impl FnOnce(&Path, SocketAddr) -> Vec<String>,
) -> Peer {
    let directory = tempfile::Builder::new()
        .prefix("ravelin-peer-")
        .tempdir()
        .unwrap();
    let address = machine.address();
    let arguments = prepare(directory.path(), address);
    let output = fs::File::create(directory.path().join("output.log")).unwrap();
    let child = machine
        .command(program)
        .args(arguments)
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin:/usr/local/bin")
        .stdin(Stdio::null())
        .stdout(output.try_clone().unwrap())
        .stderr(output)
        .spawn()
        .unwrap_or_else(|error| panic!("{program}: {error} (`make peers` installs it)"));
    machine.wait(address);
    Peer {
        child,
        directory,
        address,
    }
}

/// A server in Python, from `clients/`: its port is its first argument, then come these.
pub(crate) fn script(file: &str, arguments: &[&Path]) -> Peer {
    start(
        &Loopback,
        &crate::connect::python(),
        |_directory, address| {
            let port = address.port().to_string();
            let more = arguments.iter().map(|path| path.display().to_string());
            [super::script::path(file), port]
                .into_iter()
                .chain(more)
                .collect()
        },
    )
}

/// nginx with this `server` body (locations), over TLS when it has a certificate.
pub(crate) fn nginx(server: &str, tls: Option<&Pair>) -> Peer {
    nginx_on(&Loopback, server, tls)
}

/// The same on some machine.
pub(crate) fn nginx_on(machine: &impl Machine, server: &str, tls: Option<&Pair>) -> Peer {
    start(machine, "nginx", |directory, address| {
        let (ssl, pair) = tls.map_or((String::new(), ""), |pair| {
            let certificate = format!(
                "ssl_certificate {}; ssl_certificate_key {};",
                pair.chain.display(),
                pair.key.display()
            );
            (certificate, "ssl http2")
        });
        let config = format!(
            "daemon off; master_process off; worker_processes 1; pid {d}/nginx.pid;\n\
             error_log {d}/error.log warn; events {{ worker_connections 4096; }}\n\
             http {{ access_log {d}/access.log; client_body_temp_path {d}/body; proxy_temp_path {d}/proxy;\n\
             fastcgi_temp_path {d}/f; uwsgi_temp_path {d}/u; scgi_temp_path {d}/s; client_max_body_size 0;\n\
             server {{ listen {address} {pair}; {ssl} root {d}/root;\n{server}\n}} }}\n",
            d = directory.display(),
        );
        fs::create_dir(directory.join("root")).unwrap();
        fs::write(directory.join("nginx.conf"), config).unwrap();
        vec![
            "-p".into(),
            directory.display().to_string(),
            "-e".into(),
            directory.join("error.log").display().to_string(),
            "-c".into(),
            directory.join("nginx.conf").display().to_string(),
        ]
    })
}

/// A site on Python's own HTTP server.
pub(crate) fn python_site() -> Peer {
    start(&Loopback, "python3", |_directory, address| {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/clients/site.py");
        vec![script.into(), address.to_string()]
    })
}

/// The paths of all requests in the log of nginx or the Python site, sorted.
pub(crate) fn paths(site: &Peer) -> Vec<String> {
    let read = |name| fs::read_to_string(site.directory().join(name)).unwrap_or_default();
    let log = read("access.log") + &read("output.log");
    let mut paths: Vec<String> = log
        .lines()
        .filter_map(|line| line.split('"').nth(1))
        .filter_map(|request| request.split(' ').nth(1))
        .map(|target| target.split('?').next().unwrap_or_default().to_owned())
        .collect();
    paths.sort_unstable();
    paths
}

/// dnsmasq that answers for `corp.test`: each `name=address`, and nothing for other names.
pub(crate) fn dns(names: &[(&str, &str)]) -> Peer {
    dns_on(&Loopback, names)
}

/// The same on some machine.
pub(crate) fn dns_on(machine: &impl Machine, names: &[(&str, &str)]) -> Peer {
    start(machine, "dnsmasq", |directory, address| {
        let mut arguments: Vec<String> = [
            "--keep-in-foreground",
            "--no-resolv",
            "--no-hosts",
            "--bind-interfaces",
            "--local=/test/",
            "--user=root",
            "--conf-file=/dev/null",
        ]
        .map(String::from)
        .into();
        arguments.push(format!("--listen-address={}", address.ip()));
        arguments.push(format!("--port={}", address.port()));
        arguments.push(format!("--pid-file={}", directory.join("pid").display()));
        for (name, address) in names {
            arguments.push(format!("--host-record={name},{address}"));
        }
        arguments
    })
}

/// HAProxy that passes TCP on to this server (its name, address and options).
pub(crate) fn haproxy(server: &str) -> Peer {
    haproxy_in("tcp", server)
}

/// HAProxy that understands HTTP, in front of this backend.
pub(crate) fn haproxy_http(backend: SocketAddr) -> Peer {
    haproxy_in("http", &format!("server one {backend}"))
}

fn haproxy_in(mode: &str, server: &str) -> Peer {
    start(&Loopback, "haproxy", |directory, address| {
        let config = directory.join("haproxy.cfg");
        let text = format!(
            "global\n maxconn 100\ndefaults\n mode {mode}\n timeout connect 5s\n timeout client 60s\n\
             timeout server 60s\nfrontend device\n bind {address}\n default_backend gateway\n\
             backend gateway\n {server}\n"
        );
        fs::write(&config, text).unwrap();
        vec!["-db".into(), "-f".into(), config.display().to_string()]
    })
}

/// slapd with alice (group sales) and bob (group contractors) under `dc=corp,dc=test`; over
/// LDAPS when it has a certificate.
pub(crate) fn slapd(tls: Option<(&Pair, &Path)>) -> Peer {
    slapd_on(&Loopback, if tls.is_some() { "ldaps" } else { "ldap" }, tls)
}

/// The same on loopback, by `ldap` or `ldaps`: with `ldap` a certificate is for StartTLS.
pub(crate) fn slapd_by(scheme: &str, tls: Option<(&Pair, &Path)>) -> Peer {
    slapd_on(&Loopback, scheme, tls)
}

/// The same on some machine.
pub(crate) fn slapd_on(machine: &impl Machine, scheme: &str, tls: Option<(&Pair, &Path)>) -> Peer {
    start(machine, "slapd", |directory, address| {
        let ssl = tls.map_or(String::new(), |(pair, ca)| {
            format!(
                "TLSCertificateFile {}\nTLSCertificateKeyFile {}\nTLSCACertificateFile {}\n",
                pair.chain.display(),
                pair.key.display(),
                ca.display()
            )
        });
        let data = directory.join("data");
        fs::create_dir(&data).unwrap();
        let config = directory.join("slapd.conf");
        fs::write(
            &config,
            format!(
                "include /etc/ldap/schema/core.schema\ninclude /etc/ldap/schema/cosine.schema\n\
                 include /etc/ldap/schema/inetorgperson.schema\n\
                 modulepath /usr/lib/ldap\nmoduleload back_mdb\nmoduleload memberof\n{ssl}\
                 pidfile {d}/slapd.pid\nargsfile {d}/slapd.args\n\
                 database mdb\nsuffix dc=corp,dc=test\nrootdn cn=admin,dc=corp,dc=test\nrootpw admin\n\
                 directory {d}/data\noverlay memberof\nmemberof-group-oc groupOfNames\n\
                 access to attrs=userPassword by anonymous auth by * none\n\
                 access to * by dn.exact=cn=ravelin,dc=corp,dc=test read by * none\n",
                d = directory.display()
            ),
        )
        .unwrap();
        let ldif = directory.join("people.ldif");
        fs::write(&ldif, PEOPLE).unwrap();
        let added = Command::new("/usr/sbin/slapadd")
            .args(["-f", config.to_str().unwrap(), "-l", ldif.to_str().unwrap()])
            .output()
            .unwrap();
        assert!(
            added.status.success(),
            "slapadd: {}",
            String::from_utf8_lossy(&added.stderr)
        );
        vec![
            "-d".into(),
            "0".into(),
            "-f".into(),
            config.display().to_string(),
            "-h".into(),
            format!("{scheme}://{address}/"),
        ]
    })
}

/// The directory's people: passwords as in the user file of a site.
const PEOPLE: &str = "\
dn: dc=corp,dc=test
objectClass: dcObject
objectClass: organization
dc: corp
o: Corp

dn: cn=ravelin,dc=corp,dc=test
objectClass: applicationProcess
objectClass: simpleSecurityObject
cn: ravelin
userPassword: service secret

dn: ou=people,dc=corp,dc=test
objectClass: organizationalUnit
ou: people

dn: uid=alice,ou=people,dc=corp,dc=test
objectClass: inetOrgPerson
uid: alice
cn: Alice Example
sn: Example
mail: alice@corp.test
userPassword: correct horse
memberOf: cn=sales,dc=corp,dc=test

dn: uid=bob,ou=people,dc=corp,dc=test
objectClass: inetOrgPerson
uid: bob
cn: Bob (Contractor)
sn: Example
userPassword: battery staple

dn: cn=sales,dc=corp,dc=test
objectClass: groupOfNames
cn: sales
member: uid=alice,ou=people,dc=corp,dc=test

dn: cn=contractors,dc=corp,dc=test
objectClass: groupOfNames
cn: contractors
member: uid=bob,ou=people,dc=corp,dc=test
";
