//! Login by form and by token: what a browser, a text browser and an API client see and hold.

use std::{path::PathBuf, process::Command};

use serde_json::json;

use crate::{
    browser::browse,
    connect::{python, refusal_id},
    support::{
        client::Curl,
        gateway::{ALICE, BOB, Gateway, Site, policy},
        world::World,
    },
};

#[test]
fn a_person_logs_in_by_form_and_out_again() {
    let world = World::new();
    let browser = Browser::new(&world, "alice");
    let asked = browser.get("/");
    assert_eq!((asked.status, asked.header("location")), (303, "/login"));

    let entered = browser.log_in("alice", ALICE);
    let home = browser.get("/");

    assert_eq!((entered.status, entered.header("location")), (303, "/"));
    assert!(
        home.body.contains("Logged in as alice") && home.body.contains(">intranet</a>"),
        "{home:?}"
    );
    assert_eq!(browser.get("/login").header("location"), "/", "already in");
    for path in ["/logout", "/token", "/token/revoke"] {
        assert_eq!(browser.get(path).status, 405, "a GET changes nothing");
    }
    let without = browser.post("/logout", &[]);
    let guessed = browser.post("/logout", &[("csrf", "AAAA")]);
    assert_eq!((without.status, guessed.status), (415, 403));
    assert_eq!(
        browser.get("/").status,
        200,
        "nothing of that logged her out"
    );
    let old = browser.cookies();

    let out = browser.post("/logout", &[("csrf", &field(&home.body, "csrf"))]);

    assert_eq!((out.status, out.header("location")), (303, "/login"));
    assert_eq!(browser.get("/").status, 303);
    std::fs::write(&browser.jar, old).unwrap();
    assert_eq!(
        browser.get("/").status,
        303,
        "the cookie itself is worth nothing"
    );
}

#[test]
fn a_refused_form_says_nothing_but_the_id() {
    let world = World::new();
    let browser = Browser::new(&world, "alice");

    let wrong = browser.log_in("alice", "canary-wrong-1");
    let unknown = browser.log_in("nobody", "canary-wrong-1");
    let again = browser.log_in("alice", ALICE);

    assert_eq!((wrong.status, unknown.status), (401, 401), "{wrong:?}");
    assert_eq!(without_secrets(&wrong.body), without_secrets(&unknown.body));
    assert!(wrong.body.contains("role=\"alert\""), "{wrong:?}");
    assert!(!wrong.body.contains("canary") && !unknown.body.contains("nobody"));
    assert_eq!(again.status, 303, "{again:?}");
    for refused in [&wrong, &unknown] {
        let id = refusal_id(&refused.body);
        let line = world
            .gateway
            .log_line("the refusal", |line| line["refusal"] == id.as_str());
        assert_eq!(line["stage"], "login");
    }
}

#[test]
fn a_form_that_nobody_sent_out_is_refused() {
    let world = World::new();
    let browser = Browser::new(&world, "alice");
    let csrf = field(&browser.get("/login").body, "csrf");
    let url = world.url("gw.ravelin.test") + "/login";
    let send = |body: &str| {
        let form = world.site.write("form", body);
        let data = format!("@{}", form.display());
        browser.curl(&["--data-binary", &data, &url])
    };

    let good = format!("csrf={csrf}&user=alice&password=x");
    for (form, status) in [
        (format!("csrf={csrf}&user&password=x"), 400),
        (format!("csrf={csrf}&user=alice&password"), 400),
        (format!("{good}&user=bob"), 400),
        (format!("{good}&password=y"), 400),
        (format!("{good}&%75ser=bob"), 400),
        (format!("{good}&role=admin"), 400),
        (format!("csrf={csrf}&user=%zz&password=x"), 400),
        (format!("csrf={csrf}&user=%ff&password=x"), 400),
        (format!("csrf={csrf}&password=x"), 400),
        (String::new(), 400),
        (
            format!("csrf={csrf}&user={}&password=x", "u".repeat(64 << 10)),
            413,
        ),
        (
            format!("csrf={csrf}&user={}&password=x", "u".repeat(300)),
            401,
        ),
        ("csrf=AAAA&user=alice&password=x".into(), 403),
        (
            format!("csrf=&user=alice&password={ALICE}").replace(' ', "+"),
            403,
        ),
    ] {
        let refused = send(&form);
        assert_eq!(refused.status, status, "{form:.80}: {refused:?}");
        let id = refusal_id(&refused.body);
        world
            .gateway
            .log_line("the refusal", |line| line["refusal"] == id.as_str());
    }
}

#[test]
fn a_form_of_another_page_or_browser_is_refused() {
    let world = World::new();
    let browser = Browser::new(&world, "alice");
    let csrf = field(&browser.get("/login").body, "csrf");
    let url = world.url("gw.ravelin.test") + "/login";
    let good = format!("csrf={csrf}&user=alice&password=x");

    let kind = "Content-Type: text/plain";
    let other = browser.curl(&["--header", kind, "--data", &good, &url]);
    assert_eq!(other.status, 415);
    for header in [
        "Origin: https://evil.test",
        "Origin: null",
        "Sec-Fetch-Site: cross-site",
        "Sec-Fetch-Site: same-site",
    ] {
        let form = good.replace("password=x", &format!("password={ALICE}").replace(' ', "+"));
        let foreign = browser.curl(&["--header", header, "--data", &form, &url]);
        assert_eq!(foreign.status, 403, "{header}: {foreign:?}");
    }
    let stranger = Browser::new(&world, "bob");
    stranger.get("/login");
    let borrowed = stranger.post(
        "/login",
        &[("csrf", &csrf), ("user", "alice"), ("password", ALICE)],
    );
    assert_eq!(borrowed.status, 403, "another browser's form: {borrowed:?}");
    assert_eq!(browser.log_in("alice", ALICE).status, 303);
}

#[test]
fn cookies_are_for_one_host_over_tls_and_for_no_script() {
    let world = World::new();
    let browser = Browser::new(&world, "alice");

    let page = browser.get("/login");
    let entered = browser.log_in("alice", ALICE);
    let app = browser.visit(&(world.url("intranet.apps.test") + "/"));

    let mut seen = Vec::new();
    for answer in [page, entered, app] {
        for cookie in answer.headers("set-cookie") {
            let (pair, flags) = cookie.split_once("; ").unwrap();
            seen.push(pair.split_once('=').unwrap().0.to_owned());
            for flag in ["Path=/", "Secure", "HttpOnly", "SameSite=Lax"] {
                assert!(flags.split("; ").any(|one| one == flag), "{cookie}");
            }
            assert!(!flags.contains("Domain"), "{cookie}");
        }
    }
    seen.sort();
    seen.dedup();
    assert_eq!(
        seen,
        [
            "__Host-ravelin",
            "__Host-ravelin-app",
            "__Host-ravelin-enter",
            "__Host-ravelin-login"
        ]
    );
}

#[test]
fn a_login_never_goes_on_under_a_cookie_that_was_there_before() {
    let world = World::new();
    let mallory = Browser::new(&world, "mallory");
    mallory.log_in("bob", BOB);
    let planted = mallory.cookie("__Host-ravelin");
    assert_eq!(mallory.get("/").status, 200, "bob's session is in force");

    let victim = Browser::new(&world, "alice");
    victim.get("/login");
    let jar = std::fs::read_to_string(&victim.jar).unwrap();
    let line = jar.lines().find(|line| line.contains("-login")).unwrap();
    let line = line
        .replace("__Host-ravelin-login", "__Host-ravelin")
        .replace(&victim.cookie("__Host-ravelin-login"), &planted);
    let csrf = field(&victim.get("/login").body, "csrf");
    std::fs::write(&victim.jar, format!("{jar}{line}\n")).unwrap();
    let form = [("csrf", &*csrf), ("user", "alice"), ("password", ALICE)];
    assert_eq!(victim.post("/login", &form).status, 303);

    assert_ne!(victim.cookie("__Host-ravelin"), planted);
    assert!(victim.get("/").body.contains("Logged in as alice"));
    assert_eq!(mallory.get("/").status, 303, "the planted one has ended");
}

#[test]
fn a_login_is_handed_over_once_and_to_the_browser_that_asked() {
    let world = World::new();
    let browser = Browser::new(&world, "alice");
    let other = Browser::new(&world, "other");
    let app = world.url("intranet.apps.test");
    browser.log_in("alice", ALICE);

    let asked = browser.open(&(app.clone() + "/headers?x=1"));
    assert_eq!(asked.status, 302, "{asked:?}");
    let given = browser.open(asked.header("location"));
    assert_eq!(given.status, 302, "{given:?}");
    let enter = given.header("location").to_owned();
    assert!(enter.starts_with(&(app.clone() + "/.ravelin/enter?code=")));
    let entered = browser.open(&enter);
    let again = browser.open(&enter);

    assert_eq!(
        (entered.status, entered.header("location")),
        (302, "/headers?x=1")
    );
    assert_eq!(again.status, 400, "a code works once: {again:?}");
    let page = browser.open(&(app.clone() + "/headers?x=1"));
    assert_eq!(page.status, 200);
    assert!(
        page.body.contains("cookie= "),
        "our cookie stays here: {page:?}"
    );

    // Somebody else's link: another browser neither enters by it nor leaves it good.
    let asked = browser.open(&(world.url("intranet.apps.test") + "/?again"));
    assert_eq!(asked.status, 200, "in already");
    let fresh = Browser::new(&world, "fresh");
    fresh.log_in("alice", ALICE);
    let asked = fresh.open(&(app + "/"));
    let given = fresh.open(asked.header("location"));
    let enter = given.header("location").to_owned();
    assert_eq!(other.open(&enter).status, 400, "for another browser");
    assert_eq!(fresh.open(&enter).status, 400, "and used up by that");
    assert!(!fresh.cookies().contains("ravelin-app"));
    let logs = world.gateway.all_logs();
    let code = enter.split_once("code=").unwrap().1;
    assert!(!logs.contains(code), "a code is in a log");
}

/// Places that a login must not go on to, as a URL's query has them.
const EVIL: [&str; 9] = [
    "//evil.test",
    "%5C%5Cevil.test",
    "/%5Cevil.test",
    "https:evil.test",
    "https://evil.test/",
    "%0D%0ALocation:%20https://evil.test",
    "%0d%0a%0d%0a%3Cscript%3E",
    "javascript:alert(1)",
    "evil.test",
];

#[test]
fn nothing_leads_a_login_to_another_site() {
    let world = World::new();
    let browser = Browser::new(&world, "alice");
    let url = world.url("gw.ravelin.test");
    for evil in EVIL {
        let page = browser.open(&format!("{url}/login?ask={evil}"));
        let asked = browser.open(&format!("{url}/.ravelin/authorize?ask={evil}"));
        let next = browser.open(&format!("{url}/login?next={evil}"));
        assert_eq!(
            (page.status, asked.status, next.status),
            (200, 400, 400),
            "{evil}"
        );
        let csrf = field(&page.body, "csrf");
        let plain = evil
            .replace("%5C", "\\")
            .replace("%0D", "\r")
            .replace("%0A", "\n");
        let form = [
            ("csrf", &*csrf),
            ("user", "alice"),
            ("password", ALICE),
            ("ask", &plain),
        ];
        let entered = browser.post("/login", &form);
        assert_eq!(
            (entered.status, entered.header("location")),
            (303, "/"),
            "{evil}"
        );
        for answer in [page, asked, next, entered] {
            assert!(!answer.trace.contains("evil.test\r"), "{evil}: {answer:?}");
            assert!(!answer.body.contains("evil.test"), "{evil}: {answer:?}");
        }
        std::fs::remove_file(&browser.jar).unwrap();
    }
}

#[test]
fn an_app_leads_back_to_itself_alone() {
    let world = World::new();
    let browser = Browser::new(&world, "alice");
    let url = world.url("gw.ravelin.test");
    let app = world.url("intranet.apps.test");
    browser.log_in("alice", ALICE);
    for path in [
        "//evil.test/",
        "/%5cevil.test",
        "/..//evil.test",
        "/.//evil.test",
    ] {
        let answer = browser.curl(&["--location", "--path-as-is", &(app.clone() + path)]);
        let led = answer.headers("location");
        for location in led {
            let ours = location.starts_with(&app)
                || location.starts_with(&url)
                || (location.starts_with('/') && !location.starts_with("//"));
            assert!(ours && !location.contains('\\'), "{path}: {location}");
        }
    }
}

#[test]
fn a_device_token_opens_tunnels_and_sites_until_it_is_revoked() {
    let world = World::new();
    let browser = Browser::new(&world, "alice");
    browser.log_in("alice", ALICE);
    let home = browser.get("/");
    let csrf = field(&home.body, "csrf");
    let forged = browser.post("/token", &[("csrf", "AAAA"), ("label", "x")]);
    assert_eq!(forged.status, 403, "{forged:?}");

    let page = browser.post("/token", &[("csrf", &csrf), ("label", "<b>her phone</b>")]);
    let token = token_of(&page.body);

    assert_eq!(tunnel(&world, &token).status, 200);
    let bearer = format!("Authorization: Bearer {token}");
    let site = world.curl(&[
        "--header",
        &bearer,
        &(world.url("intranet.apps.test") + "/headers"),
    ]);
    assert_eq!(site.status, 200, "{site:?}");
    assert!(site.body.contains("auth= "), "it goes no further: {site:?}");
    let bred = world.curl(&[
        "--header",
        &bearer,
        "--data",
        "",
        &(world.url("gw.ravelin.test") + "/token"),
    ]);
    assert_eq!(bred.status, 401, "a token makes no token: {bred:?}");
    let home = browser.get("/");
    assert!(home.body.contains("&lt;b&gt;her phone"), "{home:?}");
    assert!(!home.body.contains(&token), "it is told once");

    let id = field(&home.body, "id");
    let revoked = browser.post("/token/revoke", &[("csrf", &csrf), ("id", &id)]);

    assert_eq!(revoked.status, 303, "{revoked:?}");
    assert_eq!(tunnel(&world, &token).status, 407);
    assert!(!browser.get("/").body.contains("her phone"));
    assert_absent(&world, &[&token, &token[4..]]);
}

#[test]
fn a_program_gets_a_device_token_as_json() {
    let world = World::new();
    let url = world.url("gw.ravelin.test") + "/token";
    let credential = format!("alice:{ALICE}");

    let made = world.curl(&["--user", &credential, "--data", "label=relay", &url]);
    let bare = world.curl(&["--user", &credential, "--request", "POST", &url]);
    let none = world.curl(&["--request", "POST", &url]);
    let wrong = world.curl(&["--user", "alice:canary-2", "--request", "POST", &url]);
    let origin = "Origin: https://evil.test";
    let foreign = world.curl(&[
        "--user",
        &credential,
        "--header",
        origin,
        "--data",
        "",
        &url,
    ]);

    assert_eq!((made.status, bare.status), (200, 200), "{made:?}");
    assert_eq!((none.status, wrong.status, foreign.status), (401, 401, 403));
    let json: serde_json::Value = serde_json::from_str(&made.body).unwrap();
    let token = json["token"].as_str().unwrap();
    assert!(token.starts_with("rvt_") && token.len() > 40, "256 bits");
    assert!(json["id"].as_str().unwrap().starts_with("D-"), "{json}");
    let day = json["expires"].as_str().unwrap().split_once('T').unwrap().0;
    assert_eq!(day.len(), 10, "{json}");
    assert_eq!(tunnel(&world, token).status, 200);
    let changed = format!("{}A", &token[..token.len() - 1]);
    let changed = if changed == token {
        token.to_lowercase()
    } else {
        changed
    };
    assert_eq!(tunnel(&world, &changed).status, 407);
    assert_absent(&world, &[token, &token[4..], "canary-2", &changed]);
}

#[test]
fn no_cookie_or_password_is_in_a_log_or_metric() {
    let world = World::new();
    let browser = Browser::new(&world, "alice");
    browser.log_in("alice", "canary-typo-5");
    browser.log_in("canary-name-5", "x");
    browser.log_in("alice", ALICE);
    browser.visit(&(world.url("intranet.apps.test") + "/headers?secret=canary-query-5"));
    let home = browser.get("/");
    let csrf = field(&home.body, "csrf");

    let cookies = [
        "__Host-ravelin",
        "__Host-ravelin-app",
        "__Host-ravelin-enter",
    ]
    .map(|name| browser.cookie(name));
    assert_absent(
        &world,
        &[
            ALICE,
            "correct+horse",
            "canary-",
            &csrf,
            &cookies[0],
            &cookies[1],
            &cookies[2],
            cookies[0].rsplit_once('.').unwrap().1,
        ],
    );
}

#[test]
fn a_person_logs_in_with_a_text_browser() {
    // w3m looks names up by itself, so this gateway has a name that every machine knows.
    let site = Site::new();
    site.authority.issue("gw", &["localhost"]);
    policy(&site, "permit (principal, action, resource);");
    let toml = site.base().replace("gw.ravelin.test", "localhost");
    let gateway = Gateway::start(&site, &(toml + "[network]\ninside = [\"10.0.0.0/8\"]\n"));
    let url = format!("https://localhost:{}/", gateway.address.port());

    let output = Command::new(python())
        .arg(concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/tests/it/clients/text_browser.py"
        ))
        .args([&url, "alice", ALICE])
        .arg(site.path("ca.pem"))
        .env("HOME", site.path(""))
        .output()
        .unwrap();

    let seen = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{seen}{output:?}");
    let (before, after) = seen.split_once("---- after ----").unwrap();
    for words in ["Username[", "Password[", "Useyourcompanyaccount."] {
        assert!(before.contains(words), "{seen}");
    }
    for words in ["Yourapps", "Loggedinasalice", "Logout"] {
        assert!(after.contains(words), "{seen}");
    }
    assert!(!seen.contains("color:"), "a style is shown: {seen}");
}

#[test]
fn the_pages_can_be_used_without_eyes_mouse_or_space() {
    let world = World::new();
    let gateway = world.url("gw.ravelin.test");
    let login = json!({ "input[name=user]": "alice", "input[name=password]": ALICE });
    let no_app = world.url("other.apps.test") + "/";

    for (scheme, width) in [("light", 1280), ("dark", 390), ("light", 320)] {
        for (name, url, fill) in [
            ("login", gateway.clone() + "/login", json!({})),
            ("home", gateway.clone() + "/login", login.clone()),
            ("refusal", no_app.clone(), json!({})),
        ] {
            let mut todo = json!({
                "url": url, "fill": fill, "width": width, "scheme": scheme, "arguments": [],
                "script": AUDIT,
            });
            if name == "home" {
                todo["click"] = "button[type=submit]".into();
            }
            if let Ok(folder) = std::env::var("RAVELIN_SCREENSHOTS") {
                todo["screenshot"] = format!("{folder}/{name}-{scheme}-{width}.png").into();
            }
            let page = browse(&world, todo);
            let problems = page["value"].as_str().unwrap();
            assert_eq!(problems, "[]", "{name} {scheme} {width}: {}", page["html"]);
            let heading = match name {
                "home" => "Your apps",
                "login" => "Log in",
                _ => "Not ",
            };
            assert!(page["text"].as_str().unwrap().contains(heading), "{page}");
        }
    }
}

/// What is wrong with a page: language, title, landmarks, headings, labels, targets, contrast (WCAG 2.2
/// AA), and anything wider than the screen.
const AUDIT: &str = r#"(() => {
  const bad = [];
  const one = (what, selector) => { if (document.querySelectorAll(selector).length !== 1) bad.push(what); };
  if (document.documentElement.lang !== "en") bad.push("no language");
  if (!document.title) bad.push("no title");
  one("not one main", "main"); one("not one h1", "h1");
  if (document.scripts.length) bad.push("a script");
  if (document.documentElement.scrollWidth > innerWidth) bad.push("wider than the screen");
  for (const field of document.querySelectorAll("input:not([type=hidden])"))
    if (!field.labels.length) bad.push("no label: " + field.name);
  for (const target of document.querySelectorAll("button, input:not([type=hidden]), li a")) {
    const box = target.getBoundingClientRect();
    if (box.height < 24 || box.width < 24) bad.push("small: " + target.outerHTML);
    if (box.right > innerWidth) bad.push("outside: " + target.outerHTML);
  }
  const parse = text => { const n = text.match(/[\d.]+/g).map(Number); return n.length < 4 ? [...n, 1] : n; };
  const light = c => { const f = c.slice(0, 3).map(v => v / 255).map(v => v <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4);
    return .2126 * f[0] + .7152 * f[1] + .0722 * f[2]; };
  const ground = element => { for (let e = element; e; e = e.parentElement) { const c = parse(getComputedStyle(e).backgroundColor);
    if (c[3] > 0) return c; } return [255, 255, 255, 1]; };
  const ratio = (a, b) => { const [x, y] = [light(a), light(b)].sort((p, q) => q - p); return (x + .05) / (y + .05); };
  for (const element of document.querySelectorAll("body *")) {
    const text = [...element.childNodes].some(n => n.nodeType === 3 && n.data.trim());
    const style = getComputedStyle(element);
    if (text && ratio(parse(style.color), ground(element)) < 4.5) bad.push("contrast: " + element.outerHTML);
    if (element.matches("input:not([type=hidden])") && ratio(parse(style.borderTopColor), ground(element)) < 3) bad.push("border: " + element.name);
  }
  const seen = new Set();
  for (const element of document.querySelectorAll("main > *")) {
    const text = element.innerText.trim();
    if (text && seen.has(text)) bad.push("said twice: " + text);
    seen.add(text);
  }
  return JSON.stringify(bad);
})()"#;

/// A browser of one person: curl with a cookie jar.
pub(crate) struct Browser<'a> {
    world: &'a World,
    pub(crate) jar: PathBuf,
}

impl<'a> Browser<'a> {
    pub(crate) fn new(world: &'a World, name: &str) -> Self {
        let jar = world.site.path(&format!("{name}.jar"));
        Self { world, jar }
    }

    /// Runs curl with the jar, as a browser that opens pages.
    pub(crate) fn curl(&self, arguments: &[&str]) -> Curl {
        let jar = self.jar.to_str().unwrap();
        let mut all = vec![
            "--cookie",
            jar,
            "--cookie-jar",
            jar,
            "--header",
            "Accept: text/html",
        ];
        all.extend(arguments);
        self.world.curl(&all)
    }

    /// Opens a page of the gateway's own.
    pub(crate) fn get(&self, path: &str) -> Curl {
        self.open(&(self.world.url("gw.ravelin.test") + path))
    }

    /// Opens a page.
    pub(crate) fn open(&self, url: &str) -> Curl {
        self.curl(&[url])
    }

    /// Opens a page, and goes where it leads.
    pub(crate) fn visit(&self, url: &str) -> Curl {
        self.curl(&["--location", url])
    }

    /// Sends a form to the gateway's own host.
    pub(crate) fn post(&self, path: &str, fields: &[(&str, &str)]) -> Curl {
        let url = self.world.url("gw.ravelin.test") + path;
        let fields: Vec<_> = fields.iter().map(|(k, v)| format!("{k}={v}")).collect();
        let mut arguments = vec!["--request", "POST"];
        for field in &fields {
            arguments.extend(["--data-urlencode", field]);
        }
        arguments.push(&url);
        self.curl(&arguments)
    }

    /// Opens the login page and sends its form.
    pub(crate) fn log_in(&self, user: &str, password: &str) -> Curl {
        let csrf = field(&self.get("/login").body, "csrf");
        self.post(
            "/login",
            &[("csrf", &csrf), ("user", user), ("password", password)],
        )
    }

    /// The jar.
    pub(crate) fn cookies(&self) -> String {
        std::fs::read_to_string(&self.jar).unwrap()
    }

    /// The value of a cookie.
    pub(crate) fn cookie(&self, name: &str) -> String {
        let jar = self.cookies();
        jar.lines()
            .filter_map(|line| line.rsplit_once('\t'))
            .find(|(rest, _)| rest.rsplit('\t').next() == Some(name))
            .unwrap_or_else(|| panic!("no {name} in {jar}"))
            .1
            .to_owned()
    }
}

/// The value of a hidden field.
pub(crate) fn field(html: &str, name: &str) -> String {
    let start = format!("name=\"{name}\" value=\"");
    let (_, rest) = html
        .split_once(&start)
        .unwrap_or_else(|| panic!("no {name} in {html}"));
    rest.split('"').next().unwrap().to_owned()
}

/// A page without what differs each time: form token and refusal id.
fn without_secrets(html: &str) -> String {
    html.replace(&field(html, "csrf"), "CSRF")
        .replace(&refusal_id(html), "ID")
}

fn token_of(html: &str) -> String {
    let start = html.find("rvt_").unwrap_or_else(|| panic!("{html}"));
    html[start..].split('<').next().unwrap().to_owned()
}

/// A tunnel to the intranet, opened with a device token.
pub(crate) fn tunnel(world: &World, token: &str) -> Curl {
    let proxy = world.url("gw.ravelin.test");
    let header = format!("Proxy-Authorization: Bearer {token}");
    world.curl(&[
        "--proxy",
        &proxy,
        "--proxytunnel",
        "--proxy-header",
        &header,
        &world.inside(),
    ])
}

/// These are in no log, and not among the metrics.
pub(crate) fn assert_absent(world: &World, secrets: &[&str]) {
    let metrics = crate::support::client::get(world.gateway.admin, "/metrics");
    let said = world.gateway.all_logs() + &metrics;
    for secret in secrets {
        assert!(secret.len() > 5, "too short to look for: {secret}");
        assert!(!said.contains(secret), "{secret} is in a log or metric");
    }
}
