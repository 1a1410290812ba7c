//! LDAP: finds a person, binds as that person, reads the groups (the door to ldap3).
//!
//! TCP and TLS are ours; the library sees a guarded socket pair ([`guard`]). Searches share one
//! kept service connection. A password goes out once, on a fresh connection, and an answer to it
//! is final: sent again, or to a second server, each typing error would count twice there.

use std::{
    future::Future,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use ldap3::{
    DerefAliases, LdapConnAsync, LdapConnSettings, LdapError, LdapResult, ResultEntry, Scope,
    SearchOptions, StdStream, ldap_escape,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};
use tokio_util::sync::{CancellationToken, DropGuard};
use tracing::{debug, warn};

use super::lockout::{Guess, Locked};
use crate::{
    clock,
    config::{self, LdapGroups, LdapSecurity, LdapServer, Secret},
    crypto,
    dial::{self, Dialer, Stream},
    shutdown::Tasks,
};

mod guard;

/// One directory, asked over LDAP.
#[derive(Debug)]
pub(super) struct Client {
    name: Arc<str>,
    settings: config::Ldap,
    dialer: Arc<Dialer>,
    tasks: Tasks,
    /// Until when each server is asked last, after it failed.
    down: Mutex<Vec<Option<Instant>>>,
    service: tokio::sync::Mutex<Option<Arc<Connection>>>,
}

/// What a directory says about a name and a password.
#[derive(Debug)]
pub(super) enum Answer {
    Known {
        user: Arc<str>,
        groups: Arc<[Arc<str>]>,
    },
    Locked(Locked),
    Unknown,
    Wrong {
        /// What the server said: it may name an expired or disabled account.
        why: String,
    },
}

#[derive(Debug)]
struct Connection {
    ldap: ldap3::Ldap,
    born: Instant,
    server: usize,
    _stop: DropGuard,
}

#[derive(Debug)]
struct Person {
    dn: String,
    user: Arc<str>,
    groups: Vec<String>,
}

impl Client {
    pub(super) fn new(
        name: Arc<str>,
        settings: config::Ldap,
        dialer: Arc<Dialer>,
        tasks: Tasks,
    ) -> Self {
        let down = Mutex::new(vec![None; settings.servers.len()]);
        Self {
            name,
            settings,
            dialer,
            tasks,
            down,
            service: tokio::sync::Mutex::default(),
        }
    }

    /// Checks a name and a password that is not empty.
    pub(super) async fn check(
        &self,
        name: &str,
        password: &Secret,
        guess: &mut Guess,
    ) -> Result<Answer, Error> {
        self.in_total(async {
            let Some(person) = self.find(name).await? else {
                self.bind_as_nobody(password).await?;
                return Ok(Answer::Unknown);
            };
            let account = format!("{}/{}", self.name, person.dn);
            if let Err(locked) = guess.name(&account, clock::now()) {
                self.bind_as_nobody(password).await?;
                return Ok(Answer::Locked(locked));
            }
            if let Some(why) = self.bind(&person.dn, password).await? {
                return Ok(Answer::Wrong { why });
            }
            let groups = self.groups(&person).await?;
            Ok(Answer::Known {
                user: person.user,
                groups,
            })
        })
        .await
    }

    /// Costs what a wrong password costs.
    pub(super) async fn dummy(&self, password: &Secret) -> Result<(), Error> {
        self.in_total(async {
            let nobody = data_encoding::HEXLOWER.encode(&crypto::random::<8>());
            self.find(&nobody).await?;
            self.bind_as_nobody(password).await
        })
        .await
    }

    async fn in_total<T>(
        &self,
        work: impl Future<Output = Result<T, Error>> + Send,
    ) -> Result<T, Error> {
        let limit = self.settings.total_timeout;
        // On the heap: a login is rare, and its state is large.
        timeout(limit, Box::pin(work))
            .await
            .map_err(|_elapsed| Error::Timeout {
                what: "the whole login",
                limit,
            })?
    }

    async fn find(&self, name: &str) -> Result<Option<Person>, Error> {
        let settings = &self.settings;
        let attribute = &settings.user_attribute;
        let mine = format!("({attribute}={})", ldap_escape(name));
        let filter = match &settings.user_filter {
            Some(more) => format!("(&{mine}{more})"),
            None => mine,
        };
        let mut attributes = vec![attribute.as_str()];
        if let LdapGroups::Attribute(groups) = &settings.groups {
            attributes.push(groups);
        }
        let mut found = self
            .search(&settings.user_base, &filter, &attributes, 2)
            .await?;
        let Some(entry) = found.pop() else {
            return Ok(None);
        };
        if !found.is_empty() {
            warn!(directory = %self.name, %attribute, "a name means several people: refused");
            return Ok(None);
        }
        let spellings = entry.values(attribute);
        let user = spellings
            .iter()
            .find(|spelling| spelling.to_lowercase() == name.to_lowercase())
            .or_else(|| spellings.first())
            .map_or(name, String::as_str);
        let groups = match &settings.groups {
            LdapGroups::Attribute(groups) => entry.values(groups),
            LdapGroups::Search { .. } => Vec::new(),
        };
        Ok(Some(Person {
            user: user.into(),
            groups,
            dn: entry.dn,
        }))
    }

    async fn groups(&self, person: &Person) -> Result<Arc<[Arc<str>]>, Error> {
        match &self.settings.groups {
            LdapGroups::Attribute(_) => Ok(person
                .groups
                .iter()
                .filter_map(|dn| first_value(dn))
                .map(Arc::from)
                .collect()),
            LdapGroups::Search {
                base,
                member_attribute,
                name_attribute,
            } => {
                let filter = format!("({member_attribute}={})", ldap_escape(&*person.dn));
                let found = self
                    .search(base, &filter, &[name_attribute.as_str()], MAX_GROUPS)
                    .await?;
                if found.len() >= MAX_GROUPS {
                    // Without all groups a policy that forbids one of them would not hold.
                    return Err(Error::TooManyGroups);
                }
                Ok(found
                    .iter()
                    .filter_map(|entry| entry.values(name_attribute).into_iter().next())
                    .map(Arc::from)
                    .collect())
            }
        }
    }

    /// At most `limit` entries. A search changes nothing, so it may be asked again elsewhere.
    async fn search(
        &self,
        base: &str,
        filter: &str,
        attributes: &[&str],
        limit: usize,
    ) -> Result<Vec<Entry>, Error> {
        let mut tries = self.settings.servers.len();
        loop {
            let connection = self.service().await?;
            let asked = self.search_on(&connection, base, filter, attributes, limit);
            let error = match asked.await {
                Ok(entries) => return Ok(entries),
                Err(error) => error,
            };
            let broken = matches!(error, Error::Operation { .. } | Error::Timeout { .. });
            if broken {
                self.forget(&connection).await;
            }
            if matches!(error, Error::Timeout { .. }) {
                self.mark_down(connection.server);
            }
            if !broken || tries == 0 {
                return Err(error);
            }
            debug!(directory = %self.name, %error, "searching again on a new connection");
            tries = tries.saturating_sub(1);
        }
    }

    async fn search_on(
        &self,
        connection: &Connection,
        base: &str,
        filter: &str,
        attributes: &[&str],
        limit: usize,
    ) -> Result<Vec<Entry>, Error> {
        let options = SearchOptions::new()
            .deref(DerefAliases::Never)
            .sizelimit(i32::try_from(limit).unwrap_or(i32::MAX));
        let mut ldap = connection.ldap.clone();
        let search = async {
            let mut stream = ldap
                .with_search_options(options)
                .streaming_search(base, Scope::Subtree, filter, attributes.to_vec())
                .await?;
            let mut entries = Vec::new();
            while let Some(entry) = stream.next().await? {
                // A server that ignores the size limit is not listened to for ever.
                if !(entry.is_ref() || entry.is_intermediate()) && entries.len() <= limit {
                    entries.push(entry);
                }
            }
            Ok((entries, stream.finish().await))
        };
        let what = "a search";
        let (entries, result) = self.operation(what, search).await?;
        // 4: more entries than asked for; the caller sees that many, and refuses.
        if result.rc != 0 && result.rc != 4 {
            return Err(Error::Refused {
                what,
                said: said(&result),
            });
        }
        entries
            .into_iter()
            .map(|entry| Entry::read(entry).ok_or(Error::Entry))
            .collect()
    }

    /// `None` when the password is right, else what the server said.
    async fn bind(&self, dn: &str, password: &Secret) -> Result<Option<String>, Error> {
        let connection = self.connect_any().await?;
        let result = self.bind_on(&connection, dn, password).await?;
        match result.rc {
            0 => Ok(None),
            // Wrong password; or the account is locked, disabled, gone, or has no password.
            19 | 32 | 48 | 49 | 53 => Ok(Some(said(&result))),
            _ => Err(Error::Refused {
                what: "the person's bind",
                said: said(&result),
            }),
        }
    }

    async fn bind_as_nobody(&self, password: &Secret) -> Result<(), Error> {
        let nobody = data_encoding::HEXLOWER.encode(&crypto::random::<8>());
        let dn = format!("cn={nobody},{}", self.settings.user_base);
        self.bind(&dn, password).await.map(drop)
    }

    async fn bind_on(
        &self,
        connection: &Connection,
        dn: &str,
        password: &Secret,
    ) -> Result<LdapResult, Error> {
        // A server takes an empty password for "anonymous, please" and says success (RFC 4513,
        // section 5.1.2). It was refused before; this is the last place to be sure.
        let password = password
            .expose_text()
            .filter(|text| !text.is_empty())
            .ok_or(Error::Password)?;
        let mut ldap = connection.ldap.clone();
        let result = self
            .operation("a bind", ldap.simple_bind(dn, password))
            .await;
        if result.is_err() {
            // The next login goes elsewhere first.
            self.mark_down(connection.server);
        }
        result
    }

    async fn operation<T>(
        &self,
        what: &'static str,
        work: impl Future<Output = Result<T, LdapError>> + Send,
    ) -> Result<T, Error> {
        let limit = self.settings.operation_timeout;
        timeout(limit, work)
            .await
            .map_err(|_elapsed| Error::Timeout { what, limit })?
            .map_err(|source| Error::Operation {
                what,
                source: Box::new(source),
            })
    }

    /// The kept service connection, or a new one.
    async fn service(&self) -> Result<Arc<Connection>, Error> {
        let mut kept = self.service.lock().await;
        if let Some(connection) = kept.as_ref()
            && clock::now().saturating_duration_since(connection.born) < MAX_AGE
            && !connection.ldap.clone().is_closed()
        {
            return Ok(Arc::clone(connection));
        }
        *kept = None;
        let mut tries = self.settings.servers.len();
        loop {
            let connection = self.connect_any().await?;
            let (dn, password) = (&self.settings.bind_dn, &self.settings.bind_password);
            tries = tries.saturating_sub(1);
            match self.bind_on(&connection, dn, password).await {
                Ok(result) if result.rc == 0 => {
                    let connection = Arc::new(connection);
                    *kept = Some(Arc::clone(&connection));
                    return Ok(connection);
                }
                Ok(result) => {
                    return Err(Error::Refused {
                        what: "the service account's bind",
                        said: said(&result),
                    });
                }
                Err(error) if tries == 0 => return Err(error),
                // It took the connection and says nothing, or nonsense: another may do better.
                Err(error) => {
                    warn!(directory = %self.name, %error, "asking another server");
                }
            }
        }
    }

    async fn forget(&self, connection: &Arc<Connection>) {
        let mut kept = self.service.lock().await;
        if kept
            .as_ref()
            .is_some_and(|kept| Arc::ptr_eq(kept, connection))
        {
            *kept = None;
        }
    }

    /// A fresh connection to the first server that takes one; those that failed lately go last.
    async fn connect_any(&self) -> Result<Connection, Error> {
        let mut last = Error::NoServer;
        for index in self.order() {
            let Some(server) = self.settings.servers.get(index) else {
                continue;
            };
            match self.connect(index, server).await {
                Ok(connection) => {
                    self.mark(index, None);
                    return Ok(connection);
                }
                Err(error) => {
                    let host = server.system.host();
                    warn!(directory = %self.name, server = %host, %error, "no connection");
                    self.mark_down(index);
                    last = error;
                }
            }
        }
        Err(last)
    }

    async fn connect(&self, index: usize, server: &LdapServer) -> Result<Connection, Error> {
        let limit = self.settings.connect_timeout;
        let what = "connecting";
        let stream = timeout(limit, Box::pin(self.open(server)))
            .await
            .map_err(|_elapsed| Error::Timeout { what, limit })??;
        let stop = CancellationToken::new();
        let max = self.settings.max_message;
        let stall = self.settings.operation_timeout;
        let end = match stream {
            Stream::Plain(tcp) => guard::open(tcp, max, stall, stop.clone(), &self.tasks),
            Stream::Tls(tls) => guard::open(*tls, max, stall, stop.clone(), &self.tasks),
        }
        .map_err(|source| Error::Operation {
            what,
            source: Box::new(source.into()),
        })?;
        let stop = stop.drop_guard();
        let settings = LdapConnSettings::new().set_std_stream(StdStream::Unix(end));
        let (driver, ldap) = LdapConnAsync::with_settings(settings, "ldapi:///")
            .await
            .map_err(|source| Error::Operation {
                what,
                source: Box::new(source),
            })?;
        let name = Arc::clone(&self.name);
        drop(self.tasks.spawn(async move {
            if let Err(error) = driver.drive().await {
                debug!(directory = %name, %error, "connection ended");
            }
        }));
        Ok(Connection {
            ldap,
            born: clock::now(),
            server: index,
            _stop: stop,
        })
    }

    async fn open(&self, server: &LdapServer) -> Result<Stream, Error> {
        let system = &server.system;
        match server.security {
            LdapSecurity::Plain => Ok(Stream::Plain(self.dialer.plain(system).await?)),
            LdapSecurity::StartTls => {
                let mut stream = self.dialer.plain(system).await?;
                start_tls(&mut stream).await?;
                Ok(self.dialer.secure(stream, system).await?.stream)
            }
            LdapSecurity::Tls => Ok(self.dialer.system(system).await?.stream),
        }
    }

    fn order(&self) -> Vec<usize> {
        let now = clock::now();
        let down = self.down.lock().unwrap_or_else(PoisonError::into_inner);
        let mut order: Vec<usize> = (0..down.len()).collect();
        order.sort_by_key(|index| {
            down.get(*index)
                .copied()
                .flatten()
                .is_some_and(|until| now < until)
        });
        order
    }

    fn mark_down(&self, index: usize) {
        self.mark(index, clock::now().checked_add(DOWN));
    }

    fn mark(&self, index: usize, until: Option<Instant>) {
        let mut down = self.down.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(place) = down.get_mut(index) {
            *place = until;
        }
    }
}

/// Asks for TLS (RFC 4511, section 4.14). One byte after the answer would have been put there by
/// somebody on the way, so it ends the connection.
async fn start_tls(stream: &mut TcpStream) -> Result<(), Error> {
    stream
        .write_all(START_TLS)
        .await
        .map_err(|_broken| Error::StartTls("the connection broke"))?;
    let mut answer = Vec::with_capacity(MAX_START_TLS_ANSWER);
    loop {
        let read = stream.read_buf(&mut answer).await;
        if !matches!(read, Ok(1..)) {
            return Err(Error::StartTls("the connection broke"));
        }
        match guard::message(&answer, MAX_START_TLS_ANSWER) {
            Err(_insane) => return Err(Error::StartTls("the answer is not LDAP")),
            Ok(None) => {}
            Ok(Some(length)) if length < answer.len() => {
                return Err(Error::StartTls("more than the answer came in clear text"));
            }
            Ok(Some(_)) => return started(&answer),
        }
    }
}

/// Whether a complete message is an `ExtendedResponse` to message 1 with `success`.
fn started(answer: &[u8]) -> Result<(), Error> {
    let content = inside(answer, 0x30)
        .and_then(|content| content.strip_prefix(b"\x02\x01\x01"))
        .and_then(|response| inside(response, 0x78));
    match content {
        Some([0x0a, 0x01, 0x00, ..]) => Ok(()),
        Some([0x0a, 0x01, _, ..]) => Err(Error::StartTls("the server has no TLS")),
        Some(_) | None => Err(Error::StartTls("the answer is to something else")),
    }
}

fn inside(value: &[u8], tag: u8) -> Option<&[u8]> {
    let (&length, rest) = value.strip_prefix(&[tag])?.split_first()?;
    match length {
        0..=0x7f => Some(rest),
        _ => rest.get(usize::from(length & 0x7f)..),
    }
}

/// An entry as the server sent it, read without panics.
#[derive(Debug)]
struct Entry {
    dn: String,
    attributes: Vec<(String, Vec<Vec<u8>>)>,
}

impl Entry {
    fn read(entry: ResultEntry) -> Option<Self> {
        let mut parts = entry.0.expect_constructed()?.into_iter();
        let dn = String::from_utf8(parts.next()?.expect_primitive()?).ok()?;
        let attributes = parts
            .next()?
            .expect_constructed()?
            .into_iter()
            .map(|attribute| {
                let mut parts = attribute.expect_constructed()?.into_iter();
                let name = String::from_utf8(parts.next()?.expect_primitive()?).ok()?;
                let values = parts.next()?.expect_constructed()?.into_iter();
                let values: Option<_> = values.map(|value| value.expect_primitive()).collect();
                Some((name, values?))
            })
            .collect::<Option<_>>()?;
        Some(Self { dn, attributes })
    }

    /// The values of an attribute that are text, whatever options the server added to its name.
    fn values(&self, wanted: &str) -> Vec<String> {
        self.attributes
            .iter()
            .filter(|(name, _)| {
                let bare = name.split(';').next().unwrap_or_default();
                bare.eq_ignore_ascii_case(wanted) || name.eq_ignore_ascii_case(wanted)
            })
            .flat_map(|(_, values)| values)
            .filter_map(|value| String::from_utf8(value.clone()).ok())
            .collect()
    }
}

/// The value of a DN's first attribute: `Sales, West` of `CN=Sales\, West,OU=…` (RFC 4514).
fn first_value(dn: &str) -> Option<String> {
    let (_attribute, rest) = dn.split_once('=')?;
    let mut bytes = Vec::new();
    let mut rest = rest.trim_start().bytes();
    while let Some(byte) = rest.next() {
        match byte {
            b',' | b'+' | b';' => break,
            b'\\' => {
                let next = rest.next()?;
                match char::from(next).to_digit(16) {
                    Some(high) => {
                        let low = char::from(rest.next()?).to_digit(16)?;
                        bytes.push(u8::try_from(high * 16 + low).ok()?);
                    }
                    None => bytes.push(next),
                }
            }
            _ => bytes.push(byte),
        }
    }
    String::from_utf8(bytes)
        .ok()
        .filter(|value| !value.is_empty())
}

/// A result for the log. Active Directory writes the reason as `data 532,` into its text.
fn said(result: &LdapResult) -> String {
    let text: String = result.text.chars().take(200).collect();
    format!("result {} {text:?}", result.rc)
}

/// Why a directory could not answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error(transparent)]
    Dial(#[from] dial::Error),
    #[error("an entry of the answer cannot be read")]
    Entry,
    #[error("no server is configured")]
    NoServer,
    #[error("{what} failed")]
    Operation {
        what: &'static str,
        source: Box<LdapError>,
    },
    #[error("the password cannot be sent")]
    Password,
    #[error("{what} was refused: {said}")]
    Refused { what: &'static str, said: String },
    #[error("StartTLS: {0}")]
    StartTls(&'static str),
    #[error("{what} took longer than {limit:?}")]
    Timeout { what: &'static str, limit: Duration },
    #[error("a person is in {MAX_GROUPS} groups or more")]
    TooManyGroups,
}

const START_TLS: &[u8] = b"\x30\x1d\x02\x01\x01\x77\x18\x80\x161.3.6.1.4.1.1466.20037";
const MAX_START_TLS_ANSWER: usize = 4096;
const MAX_GROUPS: usize = 10_000;
/// Active Directory closes idle connections after 15 minutes.
const MAX_AGE: Duration = Duration::from_secs(600);
const DOWN: Duration = Duration::from_secs(15);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tokio::net::TcpListener;

    use super::*;

    #[test]
    fn a_group_is_named_by_the_first_value_of_its_dn() {
        for (dn, name) in [
            ("cn=sales,ou=groups,dc=corp,dc=test", Some("sales")),
            ("CN=Sales\\, West,OU=Groups", Some("Sales, West")),
            ("CN=M\\C3\\BCnchen,OU=x", Some("München")),
            ("cn=a+uid=b,dc=c", Some("a")),
            ("cn=a\\", None),
            ("cn=a\\4", None),
            ("cn=", None),
            ("nothing", None),
        ] {
            assert_eq!(first_value(dn).as_deref(), name, "{dn}");
        }
    }

    proptest! {
        #[test]
        fn no_dn_panics(dn in ".{0,60}") {
            let _any = first_value(&dn);
        }
    }

    /// Asks a server that answers with `answer`.
    async fn asked(answer: &'static [u8]) -> Result<(), Error> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = [0; 31];
            stream.read_exact(&mut request).await.unwrap();
            assert_eq!(request, START_TLS);
            stream.write_all(answer).await.unwrap();
        };
        let client = async {
            let mut stream = TcpStream::connect(address).await.unwrap();
            start_tls(&mut stream).await
        };
        tokio::join!(server, client).1
    }

    #[tokio::test]
    async fn tls_starts_after_success_and_nothing_else() {
        let good = b"\x30\x0c\x02\x01\x01\x78\x07\x0a\x01\x00\x04\x00\x04\x00";
        asked(good).await.unwrap();
        let long = b"\x30\x84\x00\x00\x00\x10\x02\x01\x01\x78\x84\x00\x00\x00\x07\x0a\x01\x00\x04\x00\x04\x00";
        asked(long).await.unwrap();
        for bad in [
            // No TLS here (protocolError).
            b"\x30\x0c\x02\x01\x01\x78\x07\x0a\x01\x02\x04\x00\x04\x00".as_slice(),
            // An answer to message 2.
            b"\x30\x0c\x02\x01\x02\x78\x07\x0a\x01\x00\x04\x00\x04\x00",
            // A BindResponse.
            b"\x30\x0c\x02\x01\x01\x61\x07\x0a\x01\x00\x04\x00\x04\x00",
            // One more byte, from somebody on the way.
            b"\x30\x0c\x02\x01\x01\x78\x07\x0a\x01\x00\x04\x00\x04\x00\x30",
            b"HTTP/1.1 400",
            b"\x30\x0c\x02\x01",
        ] {
            assert!(
                matches!(asked(bad).await, Err(Error::StartTls(_))),
                "{bad:?}"
            );
        }
    }
}
