//! Logs in at the gateway under test as a browser does, for the cookie that all load carries.

use std::{
    collections::BTreeMap,
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream},
    sync::Arc,
    time::Duration,
};

use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned, pki_types::ServerName};

/// A person's browser that knows one address for every host.
#[derive(Debug)]
pub(super) struct Browser {
    tls: Arc<ClientConfig>,
    address: SocketAddr,
    /// Cookies by host, as they are sent.
    cookies: BTreeMap<String, BTreeMap<String, String>>,
}

impl Browser {
    /// With nothing but trust.
    pub(super) fn new(roots: RootCertStore, address: SocketAddr) -> Result<Self, rustls::Error> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let tls = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Self {
            tls: Arc::new(tls),
            address,
            cookies: BTreeMap::new(),
        })
    }

    /// Opens an app's page, fills in the form where it is led, and gives the cookie with which
    /// the app then opens.
    ///
    /// # Errors
    ///
    /// When it does not get that far.
    pub(super) fn log_in(&mut self, app: &str, user: &str, password: &str) -> io::Result<String> {
        let mut at = (app.to_owned(), "/1k".to_owned());
        let mut form = None;
        for _step in 0..STEPS {
            let answer = self.fetch(&at.0, &at.1, form.take())?;
            match (&answer.location, answer.status) {
                (Some(location), 300..=399) => at = place(&at.0, location),
                (_, 200) if at.0 == app => return self.cookie(app),
                (_, 200) => {
                    let csrf = field(&answer.body, "csrf").ok_or_else(|| {
                        io::Error::other(format!("{}{} has no login form", at.0, at.1))
                    })?;
                    let ask = field(&answer.body, "ask").unwrap_or_default();
                    form = Some(format!(
                        "csrf={csrf}&ask={ask}&user={user}&password={password}"
                    ));
                    "/login".clone_into(&mut at.1);
                }
                (_, status) => {
                    let text = format!("{}{} answered {status}", at.0, at.1);
                    return Err(io::Error::other(text));
                }
            }
        }
        Err(io::Error::other("the login leads in a circle"))
    }

    fn cookie(&self, host: &str) -> io::Result<String> {
        let pairs = self.cookies.get(host).into_iter().flatten();
        let pairs: Vec<String> = pairs
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        if pairs.is_empty() {
            return Err(io::Error::other("the login gave no cookie"));
        }
        Ok(pairs.join("; "))
    }

    fn fetch(&mut self, host: &str, path: &str, form: Option<String>) -> io::Result<Answer> {
        let port = self.address.port();
        let method = if form.is_some() { "POST" } else { "GET" };
        let mut request = format!(
            "{method} {path} HTTP/1.1\r\nHost: {host}:{port}\r\nAccept: text/html\r\n\
             Connection: close\r\n"
        );
        if let Ok(cookie) = self.cookie(host) {
            request += &format!("Cookie: {cookie}\r\n");
        }
        if let Some(form) = &form {
            request += "Content-Type: application/x-www-form-urlencoded\r\n";
            request += &format!("Content-Length: {}\r\n", form.len());
        }
        request += "\r\n";
        request += form.as_deref().unwrap_or_default();
        let answer = Answer::parse(&self.exchange(host, &request)?)?;
        let jar = self.cookies.entry(host.to_owned()).or_default();
        for cookie in &answer.cookies {
            let pair = cookie.split(';').next().unwrap_or_default();
            match pair.split_once('=') {
                Some((name, "")) => drop(jar.remove(name)),
                Some((name, value)) => drop(jar.insert(name.to_owned(), value.to_owned())),
                None => {}
            }
        }
        Ok(answer)
    }

    fn exchange(&self, host: &str, request: &str) -> io::Result<String> {
        let socket = TcpStream::connect_timeout(&self.address, PATIENCE)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
        let tls = ClientConnection::new(Arc::clone(&self.tls), name).map_err(io::Error::other)?;
        let mut stream = StreamOwned::new(tls, socket);
        stream.write_all(request.as_bytes())?;
        let mut answer = Vec::new();
        stream.take(LARGEST).read_to_end(&mut answer)?;
        Ok(String::from_utf8_lossy(&answer).into_owned())
    }
}

struct Answer {
    status: u16,
    location: Option<String>,
    cookies: Vec<String>,
    body: String,
}

impl Answer {
    fn parse(text: &str) -> io::Result<Self> {
        let broken = || io::Error::other("the gateway did not answer with HTTP");
        let (head, body) = text.split_once("\r\n\r\n").ok_or_else(broken)?;
        let mut lines = head.lines();
        let status = lines.next().and_then(|line| line.split(' ').nth(1));
        let mut answer = Self {
            status: status.and_then(|s| s.parse().ok()).ok_or_else(broken)?,
            location: None,
            cookies: Vec::new(),
            body: body.to_owned(),
        };
        for (name, value) in lines.filter_map(|line| line.split_once(": ")) {
            match &*name.to_ascii_lowercase() {
                "location" => answer.location = Some(value.to_owned()),
                "set-cookie" => answer.cookies.push(value.to_owned()),
                _ => {}
            }
        }
        Ok(answer)
    }
}

/// Host without port, and path, of a place that a redirect names.
fn place(host: &str, location: &str) -> (String, String) {
    let Some(rest) = location.strip_prefix("https://") else {
        return (host.to_owned(), location.to_owned());
    };
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    let host = authority.split(':').next().unwrap_or_default();
    (host.to_owned(), format!("/{path}"))
}

/// The value of a hidden field of the page's form.
fn field<'a>(html: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = html.split_once(&format!("name=\"{name}\" value=\""))?;
    rest.split('"').next()
}

/// Redirects and pages from an app to its cookie.
const STEPS: usize = 12;
const PATIENCE: Duration = Duration::from_secs(10);
const LARGEST: u64 = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_redirect_names_a_host_or_stays() {
        let away = place("a.test", "https://b.test:8443/login?x=1");
        let here = place("a.test", "/login");

        assert_eq!(away, ("b.test".to_owned(), "/login?x=1".to_owned()));
        assert_eq!(here, ("a.test".to_owned(), "/login".to_owned()));
    }

    #[test]
    fn an_answer_is_read_with_its_cookies() {
        let text = "HTTP/1.1 303 See Other\r\nLocation: /\r\nSet-Cookie: a=b; Path=/\r\n\r\nx";

        let answer = Answer::parse(text).unwrap();

        assert_eq!(
            (answer.status, answer.location.as_deref()),
            (303, Some("/"))
        );
        assert_eq!(
            (answer.cookies, &*answer.body),
            (vec!["a=b; Path=/".to_owned()], "x")
        );
        assert!(Answer::parse("hello").is_err());
    }
}
