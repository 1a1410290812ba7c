//! What the demo prints: where things are, and commands that can be pasted.

use std::{fmt::Write, path::Path};

use super::facts::{Facts, Person};

/// What only the printed text needs to know.
#[derive(Debug)]
pub(super) struct Extras<'a> {
    /// The browser that is installed here.
    pub(super) browser: Option<&'static str>,
    /// There is a screen to show a browser on.
    pub(super) display: bool,
    /// The hash by which a browser knows the gateway's certificate.
    pub(super) pin: &'a str,
    /// The demo's folder.
    pub(super) folder: &'a Path,
    /// The folder is removed at the end.
    pub(super) temporary: bool,
    /// The program that runs, to be called again.
    pub(super) program: &'a Path,
    /// The environment names a proxy, which cannot know the demo's hosts.
    pub(super) proxied: bool,
    /// Chromium's sandbox refuses to work for root.
    pub(super) root: bool,
}

/// The whole text; `colour` for a terminal.
pub(super) fn text(facts: &Facts, extras: &Extras<'_>, colour: bool) -> String {
    let mut page = Page {
        text: String::new(),
        colour,
    };
    page.introduction(facts, extras);
    let [alice, ..] = facts.users.as_slice() else {
        return page.text;
    };
    let shell = Shell {
        facts,
        extras,
        alice,
    };
    for (title, note, commands) in shell.sections() {
        page.section(title, note);
        for words in commands {
            page.command(&words);
        }
    }
    page.text.push('\n');
    page.text
}

/// Builds the commands.
struct Shell<'a> {
    facts: &'a Facts,
    extras: &'a Extras<'a>,
    alice: &'a Person,
}

type Section = (&'static str, &'static str, Vec<Vec<String>>);

impl Shell<'_> {
    fn sections(&self) -> Vec<Section> {
        let apps = &self.facts.apps;
        let targets = &self.facts.tunnel_targets;
        let log = self.file("access.log");
        vec![
            (
                "A browser of its own",
                self.about_browser(),
                vec![self.chromium()],
            ),
            (
                "An app, by Basic",
                "The intranet site, its WebSocket, the store.",
                vec![
                    self.as_alice([url(&apps.intranet, "hello")]),
                    self.as_alice(self.websocket()),
                    self.as_alice([quote(&apps.storefront)]),
                ],
            ),
            self.form(),
            (
                "A tunnel",
                "CONNECT through the gateway: the first is allowed, the second denied. The log \
                 tells why, by the refusal's id.",
                vec![
                    self.tunnel(&self.proxy_login(), &targets.allowed),
                    self.tunnel(&self.proxy_login(), &targets.denied),
                    vec![format!("tail -n 1 {log}")],
                ],
            ),
            (
                "A device token",
                "For clients that cannot ask for a password, good for days, revocable.",
                self.token(&targets.allowed),
            ),
            (
                "Device management, two nodes",
                "Without its cookie a device meets either node; with it, always the same.",
                vec![
                    self.as_alice(self.node_twice(None)),
                    self.as_alice(self.node_twice(Some(self.file("node.cookies")))),
                ],
            ),
            self.administration(),
        ]
    }

    fn form(&self) -> Section {
        let jar = self.file("cookies");
        let curl = |before, rest: &[String]| {
            let mut words = self.curl(before);
            words.push(format!("-b {jar} -c {jar}"));
            words.extend_from_slice(rest);
            words
        };
        (
            "The login form, with a cookie jar",
            "What a browser does: the form, the login, and its hand-over to the app's own host.",
            vec![
                curl(
                    "CSRF=$(",
                    &[
                        self.own("/login"),
                        r#"| sed -n 's/.*name="csrf" value="\([^"]*\)".*/\1/p')"#.to_owned(),
                    ],
                ),
                curl(
                    "",
                    &[
                        "-o /dev/null -w '%{http_code}\\n'".to_owned(),
                        r#"--data-urlencode "csrf=$CSRF""#.to_owned(),
                        format!("-d user={}", self.alice.name),
                        format!("-d password={}", self.alice.password),
                        self.own("/login"),
                    ],
                ),
                curl(
                    "",
                    &[
                        "-L -H 'Accept: text/html'".to_owned(),
                        url(&self.facts.apps.intranet, "hello"),
                    ],
                ),
            ],
        )
    }

    fn administration(&self) -> Section {
        (
            "For the administrator",
            "Metrics, sessions, and what the configuration means.",
            vec![
                vec![format!(
                    "curl -s{} {}/metrics",
                    self.direct(),
                    self.facts.admin
                )],
                vec![
                    self.program("sessions"),
                    format!("--control {}", path(&self.facts.control)),
                ],
                vec![
                    self.program("check"),
                    format!("-c {}", path(&self.facts.config)),
                ],
            ],
        )
    }

    fn about_browser(&self) -> &'static str {
        match (self.extras.browser, self.extras.display) {
            (Some(_), true) => "With a fresh profile, nothing installed; log in as alice.",
            (Some(_), false) => "No screen here, so it takes a picture: login.png in the folder.",
            (None, _) => "Not installed here: `apt install chromium` first.",
        }
    }

    fn chromium(&self) -> Vec<String> {
        let mut words = vec![
            self.extras.browser.unwrap_or("chromium").to_owned(),
            format!("--user-data-dir={}", self.file("chromium")),
            "--no-first-run".to_owned(),
            format!(
                "--host-resolver-rules={}",
                quote("MAP *.ravelin.test 127.0.0.1")
            ),
            format!("--ignore-certificate-errors-spki-list={}", self.extras.pin),
        ];
        if self.extras.proxied {
            words.push("--no-proxy-server".to_owned());
        }
        if !self.extras.display {
            let picture = self.file("login.png");
            words.push(format!("--headless=new --screenshot={picture}"));
        }
        if self.extras.root {
            words.push("--no-sandbox".to_owned());
        }
        words.push(self.own("/"));
        words
    }

    fn as_alice(&self, rest: impl IntoIterator<Item = String>) -> Vec<String> {
        let mut words = self.curl("");
        words.push(format!("-u {}", quote(&login(self.alice))));
        words.extend(rest);
        words
    }

    fn websocket(&self) -> Vec<String> {
        [
            "-iN --http1.1",
            "-H 'Connection: Upgrade'",
            "-H 'Upgrade: websocket'",
            "-H 'Sec-WebSocket-Version: 13'",
            "-H 'Sec-WebSocket-Key: cmF2ZWxpbiBkZW1vIGtleQ=='",
        ]
        .map(str::to_owned)
        .into_iter()
        .chain([url(&self.facts.apps.intranet, "ws?greet")])
        .collect()
    }

    fn tunnel(&self, login: &str, target: &str) -> Vec<String> {
        vec![
            "curl -si".to_owned(),
            format!("--resolve {}", quote(&self.resolve())),
            format!("--proxy {}", self.own("")),
            format!("--proxy-cacert {}", path(&self.facts.ca)),
            login.to_owned(),
            "--proxytunnel".to_owned(),
            format!("http://{target}/hello"),
        ]
    }

    fn proxy_login(&self) -> String {
        format!("--proxy-user {}", quote(&login(self.alice)))
    }

    fn token(&self, target: &str) -> Vec<Vec<String>> {
        let mut ask = self.curl("TOKEN=$(");
        ask.extend([
            format!("-u {}", quote(&login(self.alice))),
            "-H 'Accept: application/json'".to_owned(),
            "-X POST".to_owned(),
            self.own("/token"),
            r#"| sed -n 's/.*"token" *: *"\([^"]*\)".*/\1/p')"#.to_owned(),
        ]);
        let bearer = r#"--proxy-header "Proxy-Authorization: Bearer $TOKEN""#;
        vec![ask, self.tunnel(bearer, target)]
    }

    fn node_twice(&self, jar: Option<String>) -> Vec<String> {
        let jar = jar.map(|jar| format!("-b {jar} -c {jar}"));
        let node = url(&self.facts.apps.xenmobile, "node");
        jar.into_iter().chain([node.clone(), node]).collect()
    }

    fn curl(&self, before: &str) -> Vec<String> {
        let direct = self.direct();
        vec![
            format!("{before}curl -s{direct}"),
            format!("--cacert {}", path(&self.facts.ca)),
            format!("--resolve {}", quote(&self.resolve())),
        ]
    }

    fn direct(&self) -> &'static str {
        if self.extras.proxied {
            " --noproxy '*'"
        } else {
            ""
        }
    }

    /// Every name at the gateway's port is the gateway.
    fn resolve(&self) -> String {
        let gateway = self.facts.gateway;
        format!("*:{}:{}", gateway.port(), gateway.ip())
    }

    fn own(&self, path: &str) -> String {
        format!(
            "https://{}:{}{path}",
            self.facts.host,
            self.facts.gateway.port()
        )
    }

    fn file(&self, name: &str) -> String {
        path(&self.extras.folder.join(name))
    }

    fn program(&self, command: &str) -> String {
        format!("{} {command}", path(self.extras.program))
    }
}

struct Page {
    text: String,
    colour: bool,
}

impl Page {
    fn introduction(&mut self, facts: &Facts, extras: &Extras<'_>) {
        let own = format!("https://{}:{}/", facts.host, facts.gateway.port());
        let gone = if extras.temporary {
            "   (removed at the end)"
        } else {
            ""
        };
        let title = self.bold("ravelin demo");
        self.line(&format!(
            "\n  {title}: the gateway, on loopback. Ctrl-C drains and ends it.\n"
        ));
        self.fact("gateway", &format!("{own}   on {}", facts.gateway));
        for person in &facts.users {
            let groups = person.groups.join(", ");
            let about = format!("{:<7} password {}   {groups}", person.name, person.password);
            self.fact("log in as", &about);
        }
        self.fact("admin", &facts.admin);
        self.fact("folder", &format!("{}{gone}", extras.folder.display()));
        self.fact("facts", "demo.json in that folder, for programs");
        self.line(
            "\n  Real: the gateway, run from the ravelin.toml in that folder like any other.\n  \
             Stand-ins, in the same process: DNS server for corp.test, intranet and payroll\n  \
             sites, a StoreFront-like store, two XenMobile-like nodes, a ticket broker, and\n  \
             a TCP echo as desktop (opened by tickets, so nothing below leads to it yet).",
        );
    }

    fn fact(&mut self, name: &str, value: &str) {
        let name = self.dim(&format!("{name:<10}"));
        self.line(&format!("  {name} {value}"));
    }

    fn section(&mut self, title: &str, note: &str) {
        let title = self.bold(title);
        self.line(&format!("\n  {title}"));
        for line in wrap(note.split(' '), WIDTH) {
            let line = self.dim(&line);
            self.line(&format!("  {line}"));
        }
    }

    /// A command on as few lines as fit; a backslash continues it, so that it can be pasted.
    fn command(&mut self, words: &[String]) {
        let lines = wrap(words.iter().map(String::as_str), WIDTH - 2);
        let lines: Vec<_> = lines.iter().map(|line| format!("  {line}")).collect();
        self.line(&format!("\n{}", lines.join(" \\\n  ")));
    }

    fn line(&mut self, text: &str) {
        // Writing to a String cannot fail.
        let _written = writeln!(self.text, "{text}");
    }

    fn bold(&self, text: &str) -> String {
        self.paint("1", text)
    }

    fn dim(&self, text: &str) -> String {
        self.paint("2", text)
    }

    fn paint(&self, code: &str, text: &str) -> String {
        if self.colour {
            format!("\u{1b}[{code}m{text}\u{1b}[0m")
        } else {
            text.to_owned()
        }
    }
}

/// Words in lines of at most `width` characters; a longer word has a line of its own.
fn wrap<'a>(words: impl Iterator<Item = &'a str>, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in words {
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + word.chars().count() <= width => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

fn login(person: &Person) -> String {
    format!("{}:{}", person.name, person.password)
}

fn url(base: &str, rest: &str) -> String {
    quote(&format!("{base}{rest}"))
}

fn path(path: &Path) -> String {
    quote(&path.display().to_string())
}

/// The text as one word of a POSIX shell.
fn quote(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/:.,_-=+@%".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        return text.to_owned();
    }
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// Columns for text, and for commands with their indent and backslash.
const WIDTH: usize = 76;
