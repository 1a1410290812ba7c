//! Tests of the login: whole requests against whole answers, over a user file.

use std::{
    collections::HashMap,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Instant,
};

use http::header::{CONTENT_SECURITY_POLICY, COOKIE, HOST};

use super::*;
use crate::{config::Files, listener::peer::Handshake, refusal};

const GATEWAY: &str = "gw.example.com";
const APP: &str = "intranet.example.com";
const FORM: &str = "application/x-www-form-urlencoded";

/// A login with a user `alice` whose password is `right`, and an app.
struct World {
    login: Login,
    peer: Peer,
    config: Config,
    record: Record,
    /// What a browser would keep, by host and name.
    cookies: HashMap<(String, String), String>,
    file: PathBuf,
}

impl Drop for World {
    fn drop(&mut self) {
        let _gone = std::fs::remove_file(&self.file);
    }
}

impl World {
    fn new() -> Self {
        let text = include_str!("../../../examples/ravelin.toml");
        let path = Path::new("examples/ravelin.toml");
        let mut config = Config::parse(text, path, Files::Unchecked).unwrap();
        config.login.step = Duration::from_millis(10);
        let name = data_encoding::HEXLOWER.encode(&crypto::random::<8>());
        let file = std::env::temp_dir().join(format!("ravelin-login-{name}"));
        let hash = crate::auth::hash_password(&Secret::new(b"right".to_vec()));
        std::fs::write(&file, format!("alice:sales:{hash}\n")).unwrap();
        let authenticator = Arc::new(Authenticator::for_test(&file, &config.login));
        let master = MasterKey::generate();
        let sessions = Arc::new(Sessions::new(&config, &master));
        let address: SocketAddr = "192.0.2.1:50000".parse().unwrap();
        Self {
            login: Login::new(&config, sessions, authenticator, &master),
            peer: Peer {
                connection: 1,
                address,
                socket: address,
                local: address,
                listener: Arc::clone(&config.listeners[0]),
                tls: Handshake {
                    sni: None,
                    known_name: true,
                    http2: false,
                    version: "TLSv1.3",
                    cipher: "",
                    group: "",
                    resumed: false,
                    certificate: None,
                },
            },
            config,
            record: Record::default(),
            cookies: HashMap::new(),
            file,
        }
    }

    /// A request of a browser that keeps cookies by host.
    fn request(
        &self,
        method: &str,
        url: &str,
        fields: &[(&str, &str)],
        body: &str,
    ) -> Request<Body> {
        let rest = url.strip_prefix("https://").unwrap();
        let (host, path) = rest.split_at(rest.find('/').unwrap());
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header(HOST, host);
        for ((at, name), value) in &self.cookies {
            if at == host.split(':').next().unwrap() {
                request = request.header(COOKIE, format!("{name}={value}"));
            }
        }
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        request.body(Body::full(body.to_owned())).unwrap()
    }

    async fn send(&mut self, url: &str, request: Request<Body>) -> Response<Body> {
        let host = request.headers()[HOST].to_str().unwrap().to_owned();
        let host = host.split(':').next().unwrap().to_owned();
        let Self {
            login,
            peer,
            record,
            config,
            ..
        } = self;
        let response = if host == GATEWAY {
            let apps = |_: &Session| {
                vec![Link {
                    name: "intranet".into(),
                    url: format!("https://{APP}/"),
                }]
            };
            match login.own_host(peer, request, &apps, record).await {
                Ok(response) => response,
                Err(why) => login.refuse(&why, record),
            }
        } else if let Some(answer) = login.app_host(&host, &request, record) {
            answer.unwrap_or_else(|why| login.refuse(&why, record))
        } else {
            let app = config.apps.iter().find(|app| *app.host == *host).unwrap();
            match login
                .identify_app(peer, request.headers(), &host, record)
                .await
            {
                Ok(found) => Response::new(Body::full(found.session.identity().user.to_string())),
                Err(why) => login.ask_app(app, &request, &why, record),
            }
        };
        for cookie in response.headers().get_all(SET_COOKIE) {
            let cookie = cookie.to_str().unwrap();
            assert!(cookie.starts_with("__Host-") && cookie.contains("; Path=/; Secure; HttpOnly"));
            let (name, rest) = cookie.split_once('=').unwrap();
            let value = rest.split(';').next().unwrap();
            let key = (host.clone(), name.to_owned());
            if value.is_empty() {
                self.cookies.remove(&key);
            } else {
                self.cookies.insert(key, value.to_owned());
            }
        }
        let _url = url;
        response
    }

    async fn get(&mut self, url: &str) -> Response<Body> {
        let request = self.request("GET", url, &[("accept", "text/html")], "");
        self.send(url, request).await
    }

    async fn post(&mut self, path: &str, body: &str) -> Response<Body> {
        let url = format!("https://{GATEWAY}{path}");
        let request = self.request("POST", &url, &[("content-type", FORM)], body);
        self.send(&url, request).await
    }

    /// Opens the login page and sends its form.
    async fn log_in(&mut self, password: &str, query: &str) -> Response<Body> {
        let page = self.get(&format!("https://{GATEWAY}/login{query}")).await;
        let html = text(page).await;
        let csrf = value(&html, "csrf");
        let ask = if html.contains("name=\"ask\"") {
            format!("&ask={}", value(&html, "ask"))
        } else {
            String::new()
        };
        let form = format!("csrf={csrf}&user=alice&password={password}{ask}");
        self.post("/login", &form).await
    }

    async fn home_csrf(&mut self) -> String {
        let page = self.get(&format!("https://{GATEWAY}/")).await;
        value(&text(page).await, "csrf")
    }
}

async fn text(response: Response<Body>) -> String {
    let bytes = response.into_body().collect(1 << 20).await.unwrap();
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// The value of a hidden field.
fn value(html: &str, name: &str) -> String {
    let mark = format!("name=\"{name}\" value=\"");
    let start = html.find(&mark).unwrap() + mark.len();
    html.get(start..)
        .unwrap()
        .split('"')
        .next()
        .unwrap()
        .to_owned()
}

fn location(response: &Response<Body>) -> &str {
    response.headers()[LOCATION].to_str().unwrap()
}

#[tokio::test]
async fn a_browser_logs_in_and_out() {
    let mut world = World::new();
    let home = format!("https://{GATEWAY}/");
    assert_eq!(location(&world.get(&home).await), "/login");

    let done = world.log_in("right", "").await;
    assert_eq!(done.status(), StatusCode::SEE_OTHER);
    assert_eq!(location(&done), "/");
    assert_eq!(world.record.user.as_deref(), Some("alice"));
    let html = text(world.get(&home).await).await;
    assert!(html.contains("https://intranet.example.com/"), "{html}");

    let csrf = value(&html, "csrf");
    let out = world.post("/logout", &format!("csrf={csrf}")).await;
    assert_eq!(location(&out), "/login");
    assert!(world.login.sessions.list().is_empty());
    assert_eq!(location(&world.get(&home).await), "/login");
}

#[tokio::test]
async fn a_wrong_password_shows_the_page_again_with_an_id() {
    let mut world = World::new();
    let answer = world.log_in("wrong", "").await;

    assert_eq!(answer.status(), StatusCode::UNAUTHORIZED);
    assert!(
        answer.headers()[WWW_AUTHENTICATE]
            .to_str()
            .unwrap()
            .starts_with("Form ")
    );
    let refused = world.record.refused.take().unwrap();
    let html = text(answer).await;
    assert!(html.contains(refused.id.as_str()));
    assert!(html.contains("role=\"alert\""));
    assert!(!html.contains("alice") && !html.contains("wrong"));
    assert!(refused.reason.contains("wrong password for alice"));
}

#[tokio::test]
async fn a_login_goes_on_to_the_app_that_asked() {
    let mut world = World::new();
    let asked = world.get(&format!("https://{APP}:8443/a/b?c=%20d")).await;
    assert_eq!(asked.status(), StatusCode::FOUND);
    let url = location(&asked).to_owned();
    assert!(
        url.starts_with("https://gw.example.com:8443/.ravelin/authorize?ask="),
        "{url}"
    );

    let to_login = world.get(&url).await;
    let query = location(&to_login)
        .strip_prefix("/login")
        .unwrap()
        .to_owned();
    let page = world
        .get(&format!("https://{GATEWAY}:8443/login{query}"))
        .await;
    let policy = page.headers()[CONTENT_SECURITY_POLICY].to_str().unwrap();
    assert!(
        policy.contains("form-action 'self' https://intranet.example.com:*;"),
        "{policy}"
    );
    let done = world.log_in("right", &query).await;
    let onward = format!("https://{GATEWAY}:8443{}", location(&done));
    let coded = world.get(&onward).await;
    let enter = location(&coded).to_owned();
    assert!(enter.starts_with("https://intranet.example.com:8443/.ravelin/enter?code="));
    let entered = world.get(&enter).await;
    assert_eq!(location(&entered), "/a/b?c=%20d");
    let site = world.get(&format!("https://{APP}/a/b")).await;
    assert_eq!(text(site).await, "alice");

    // The code worked once.
    let again = world.get(&enter).await;
    assert_eq!(again.status(), StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn a_code_is_for_the_browser_that_asked_and_for_its_host() {
    let mut world = World::new();
    let asked = world.get(&format!("https://{APP}/")).await;
    let url = location(&asked).to_owned();
    world.log_in("right", "").await;
    let enter = location(&world.get(&url).await).to_owned();

    // Somebody gives the link to a browser that did not ask.
    world
        .cookies
        .remove(&(APP.to_owned(), cookie::ENTER.to_owned()));
    let stolen = world.get(&enter).await;
    assert_eq!(stolen.status(), StatusCode::BAD_REQUEST);
    assert!(
        !world
            .cookies
            .contains_key(&(APP.to_owned(), cookie::APP.to_owned()))
    );

    let asked = world.get(&format!("https://{APP}/")).await;
    let url = location(&asked).to_owned();
    let enter = location(&world.get(&url).await).to_owned();
    let elsewhere = enter.replace(APP, "apps.example.com");
    assert_eq!(
        world.get(&elsewhere).await.status(),
        StatusCode::BAD_REQUEST
    );
}

#[tokio::test]
async fn a_browser_token_is_good_on_its_own_host_alone() {
    let mut world = World::new();
    world.log_in("right", "").await;
    let key = (GATEWAY.to_owned(), cookie::SESSION.to_owned());
    let token = world.cookies[&key].clone();

    world
        .cookies
        .insert((APP.to_owned(), cookie::APP.to_owned()), token);
    let answer = world.get(&format!("https://{APP}/")).await;
    assert_eq!(answer.status(), StatusCode::FOUND);
}

#[tokio::test]
async fn a_session_that_was_there_before_the_login_is_not_kept() {
    let mut world = World::new();
    let key = (GATEWAY.to_owned(), cookie::SESSION.to_owned());
    world.cookies.insert(key.clone(), "planted".into());
    world.log_in("right", "").await;
    let first = world.cookies[&key].clone();
    assert_ne!(first, "planted");

    // A second login in the same browser, by a form that was still open.
    let page = World::new();
    drop(page);
    let form_cookie = (GATEWAY.to_owned(), cookie::LOGIN.to_owned());
    let browser: [u8; 16] = crypto::random();
    let encoded = data_encoding::BASE64URL_NOPAD.encode(&browser);
    world.cookies.insert(form_cookie, encoded);
    let wall = clock::since_epoch().as_secs();
    let csrf = origin::form_token(&world.login.sealer, &browser, wall);
    world
        .post("/login", &format!("csrf={csrf}&user=alice&password=right"))
        .await;
    assert_ne!(world.cookies[&key], first);
    assert_eq!(world.login.sessions.list().len(), 1);
}

#[tokio::test]
async fn a_form_without_its_cookie_or_from_elsewhere_logs_nobody_in() {
    let mut world = World::new();
    let page = world.get(&format!("https://{GATEWAY}/login")).await;
    let csrf = value(&text(page).await, "csrf");
    let form = format!("csrf={csrf}&user=alice&password=right");
    let url = format!("https://{GATEWAY}/login");

    for (name, from) in [
        ("origin", "https://evil.example"),
        ("origin", "null"),
        ("sec-fetch-site", "cross-site"),
        ("sec-fetch-site", "same-site"),
    ] {
        let fields = [("content-type", FORM), (name, from)];
        let request = world.request("POST", &url, &fields, &form);
        assert_eq!(
            world.send(&url, request).await.status(),
            StatusCode::FORBIDDEN
        );
    }
    world.cookies.clear();
    assert_eq!(
        world.post("/login", &form).await.status(),
        StatusCode::FORBIDDEN
    );
    assert!(world.login.sessions.list().is_empty());
}

#[tokio::test]
async fn forms_of_a_session_need_its_own_token() {
    let mut world = World::new();
    let page = world.get(&format!("https://{GATEWAY}/login")).await;
    let foreign = value(&text(page).await, "csrf");
    world.log_in("right", "").await;
    for path in ["/logout", "/token", "/token/revoke"] {
        let answer = world.post(path, &format!("csrf={foreign}")).await;
        assert_eq!(answer.status(), StatusCode::FORBIDDEN, "{path}");
        let answer = world.post(path, "").await;
        assert_eq!(answer.status(), StatusCode::BAD_REQUEST, "{path}");
    }
    assert_eq!(world.login.sessions.list().len(), 1);
}

#[tokio::test]
async fn bad_forms_are_refused_as_what_they_are() {
    let mut world = World::new();
    let huge = format!("csrf=a&user={}&password=b", "x".repeat(64 << 10));
    for (form, status) in [
        ("csrf=a&user=alice&password", StatusCode::BAD_REQUEST),
        (
            "csrf=a&user=alice&user=bob&password=x",
            StatusCode::BAD_REQUEST,
        ),
        ("csrf=a&login=alice&password=x", StatusCode::BAD_REQUEST),
        ("csrf=a&user=alice", StatusCode::BAD_REQUEST),
        ("csrf=a&user=%ff&password=x", StatusCode::BAD_REQUEST),
        ("", StatusCode::BAD_REQUEST),
        (&*huge, StatusCode::PAYLOAD_TOO_LARGE),
    ] {
        let answer = world.post("/login", form).await;
        assert_eq!(answer.status(), status, "{form:.60}");
        let refused = world.record.refused.take().unwrap();
        let html = text(answer).await;
        assert!(html.contains(refused.id.as_str()));
        assert!(!html.contains("alice"));
    }
    let url = format!("https://{GATEWAY}/login");
    let json = world.request("POST", &url, &[("content-type", "application/json")], "{}");
    let answer = world.send(&url, json).await;
    assert_eq!(answer.status(), StatusCode::UNSUPPORTED_MEDIA_TYPE);
}

#[tokio::test]
async fn asks_that_are_not_ours_lead_nowhere() {
    let mut world = World::new();
    world.log_in("right", "").await;
    for ask in ["", "x", "https://evil.example", "%0d%0aSet-Cookie:x"] {
        let url = format!("https://{GATEWAY}/.ravelin/authorize?ask={ask}");
        let answer = world.get(&url).await;
        assert_eq!(answer.status(), StatusCode::BAD_REQUEST);
        assert!(!answer.headers().contains_key(LOCATION));
    }
    let foreign = Ask {
        made: clock::since_epoch().as_secs(),
        browser: [0; 16],
        host: "evil.example".into(),
        path: "/".into(),
    };
    let text = foreign.seal(&world.login.sealer);
    let answer = world
        .get(&format!("https://{GATEWAY}/.ravelin/authorize?ask={text}"))
        .await;
    assert_eq!(answer.status(), StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn a_path_that_could_leave_the_host_is_forgotten() {
    let mut world = World::new();
    world.log_in("right", "").await;
    for path in [
        "//evil.example/",
        "/\\evil.example",
        &format!("/{}", "x".repeat(5000)),
    ] {
        let asked = world.get(&format!("https://{APP}{path}")).await;
        let url = location(&asked).to_owned();
        let enter = location(&world.get(&url).await).to_owned();
        let entered = world.get(&enter).await;
        assert_eq!(location(&entered), "/", "{path:.40}");
        world
            .cookies
            .remove(&(APP.to_owned(), cookie::APP.to_owned()));
    }
}

#[tokio::test]
async fn scripts_and_programs_are_asked_and_not_redirected() {
    let mut world = World::new();
    let url = format!("https://{APP}/data");
    let program = world.request("GET", &url, &[("accept", "*/*")], "");
    let answer = world.send(&url, program).await;
    assert_eq!(answer.status(), StatusCode::UNAUTHORIZED);
    let challenge = answer.headers()[WWW_AUTHENTICATE].to_str().unwrap();
    assert!(challenge.starts_with("Basic realm=") && challenge.contains("Bearer "));

    let fields = [("accept", "text/html"), ("sec-fetch-mode", "cors")];
    let script = world.request("GET", &url, &fields, "");
    let answer = world.send(&url, script).await;
    let challenge = answer.headers()[WWW_AUTHENTICATE].to_str().unwrap();
    assert!(
        challenge.starts_with("Bearer "),
        "a dialogue would open: {challenge}"
    );
    let post = world.request("POST", &url, &[("accept", "text/html")], "");
    assert_eq!(
        world.send(&url, post).await.status(),
        StatusCode::UNAUTHORIZED
    );
}

fn basic(pair: &str) -> String {
    format!("Basic {}", data_encoding::BASE64.encode(pair.as_bytes()))
}

async fn tunnel(world: &mut World, credential: &str) -> Result<Arc<Session>, Error> {
    let mut headers = http::HeaderMap::new();
    headers.insert("proxy-authorization", credential.parse().unwrap());
    let World {
        login,
        peer,
        record,
        ..
    } = world;
    login.identify_tunnel(peer, &headers, record).await
}

#[tokio::test]
async fn tunnels_of_one_credential_share_a_session() {
    let mut world = World::new();
    let first = tunnel(&mut world, &basic("alice:right")).await.unwrap();
    let again = tunnel(&mut world, &basic("alice:right")).await.unwrap();

    assert!(Arc::ptr_eq(&first, &again));
    assert_eq!(first.class(), Class::Basic);
}

#[tokio::test]
async fn a_tunnel_without_a_good_credential_gets_407() {
    let mut world = World::new();
    for credential in [
        basic("alice:wrong"),
        basic("nobody:right"),
        basic("alice:"),
        "Bearer rvt_unknown".into(),
        "Negotiate abc".into(),
    ] {
        let why = tunnel(&mut world, &credential).await.unwrap_err();
        let answer = world.login.ask_tunnel(&why, &mut world.record);
        assert_eq!(
            answer.status(),
            StatusCode::PROXY_AUTHENTICATION_REQUIRED,
            "{credential}"
        );
        assert!(answer.headers().contains_key(PROXY_AUTHENTICATE));
    }
    let why = tunnel(&mut world, "Basic %%%").await.unwrap_err();
    assert_eq!(
        world.login.ask_tunnel(&why, &mut world.record).status(),
        StatusCode::BAD_REQUEST
    );
    let none = http::HeaderMap::new();
    let why = world
        .login
        .identify_tunnel(&world.peer, &none, &mut world.record)
        .await
        .unwrap_err();
    assert!(matches!(why, Error::Required));
}

#[tokio::test]
async fn a_program_gets_a_device_token_and_uses_it() {
    let mut world = World::new();
    let url = format!("https://{GATEWAY}/token");
    let fields = [
        ("authorization", &*basic("alice:right")),
        ("accept", "application/json"),
    ];
    let request = world.request("POST", &url, &fields, "");
    let answer = world.send(&url, request).await;
    assert_eq!(answer.status(), StatusCode::OK);
    let json: serde_json::Value = serde_json::from_str(&text(answer).await).unwrap();
    let bearer = format!("Bearer {}", json["token"].as_str().unwrap());
    assert!(json["expires"].as_str().unwrap().ends_with('Z'), "{json}");

    let session = tunnel(&mut world, &bearer).await.unwrap();
    assert_eq!(session.class(), Class::Device);
    // It makes no further token.
    let request = world.request("POST", &url, &[("authorization", &bearer)], "");
    assert_eq!(
        world.send(&url, request).await.status(),
        StatusCode::UNAUTHORIZED
    );
}

/// A form whose sessions end while it is on its way.
struct Overtaken(Arc<Sessions>, Option<String>);

impl http_body::Body for Overtaken {
    type Data = bytes::Bytes;
    type Error = crate::web::body::Error;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        _context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<http_body::Frame<bytes::Bytes>, Self::Error>>> {
        self.0.end_all();
        let form = self.1.take();
        std::task::Poll::Ready(form.map(|form| Ok(http_body::Frame::data(form.into()))))
    }
}

#[tokio::test]
async fn a_session_that_ends_while_the_form_comes_makes_no_device_token() {
    let mut world = World::new();
    world.log_in("right", "").await;
    let csrf = world.home_csrf().await;
    let url = format!("https://{GATEWAY}/token");
    let sessions = Arc::clone(&world.login.sessions);
    let form = format!("csrf={csrf}&label=mine");
    let request = world
        .request("POST", &url, &[("content-type", FORM)], "")
        .map(|_empty| Body::stream(Overtaken(sessions, Some(form))));

    let answer = world.send(&url, request).await;

    assert_eq!(answer.status(), StatusCode::UNAUTHORIZED);
    let alice = crate::auth::Identity {
        user: "alice".into(),
        directory: "local".into(),
        groups: Arc::from([]),
    };
    assert!(world.login.sessions.devices_of(&alice).is_empty());
}

#[tokio::test]
async fn a_person_makes_and_revokes_a_device_token() {
    let mut world = World::new();
    world.log_in("right", "").await;
    let csrf = world.home_csrf().await;
    let page = world
        .post("/token", &format!("csrf={csrf}&label=my+<phone>"))
        .await;
    let html = text(page).await;
    let start = html.find("rvt_").unwrap();
    let token = html.get(start..start + 47).unwrap();
    let session = tunnel(&mut world, &format!("Bearer {token}"))
        .await
        .unwrap();

    let home = text(world.get(&format!("https://{GATEWAY}/")).await).await;
    assert!(home.contains("my &lt;phone&gt;"));
    assert!(!home.contains(token));
    let id = value(&home, "id");
    world
        .post("/token/revoke", &format!("csrf={csrf}&id={id}"))
        .await;
    assert!(session.ended().is_cancelled());
    tunnel(&mut world, &format!("Bearer {token}"))
        .await
        .unwrap_err();
}

#[tokio::test]
async fn wrong_methods_and_unknown_pages_are_told() {
    let mut world = World::new();
    for (method, path, status) in [
        ("DELETE", "/login", StatusCode::METHOD_NOT_ALLOWED),
        ("GET", "/logout", StatusCode::METHOD_NOT_ALLOWED),
        ("POST", "/", StatusCode::METHOD_NOT_ALLOWED),
        ("GET", "/.ravelin/enter", StatusCode::NOT_FOUND),
        ("GET", "/admin", StatusCode::NOT_FOUND),
        ("GET", "/login/", StatusCode::NOT_FOUND),
    ] {
        let url = format!("https://{GATEWAY}{path}");
        let request = world.request(method, &url, &[], "");
        let answer = world.send(&url, request).await;
        assert_eq!(answer.status(), status, "{method} {path}");
        let allows = status == StatusCode::METHOD_NOT_ALLOWED;
        assert_eq!(answer.headers().contains_key(ALLOW), allows);
    }
}

#[tokio::test]
async fn unknown_wrong_and_locked_look_the_same() {
    let mut world = World::new();
    let mut pages = Vec::new();
    for (user, password) in [("alice", "wrong"), ("nobody", "wrong"), ("alice", "")] {
        let page = world.get(&format!("https://{GATEWAY}/login")).await;
        let csrf = value(&text(page).await, "csrf");
        let form = format!("csrf={csrf}&user={user}&password={password}");
        let asked: Instant = clock::now();
        let answer = world.post("/login", &form).await;
        assert!(clock::now() - asked >= Duration::from_millis(10));
        let status = answer.status();
        let id = world.record.refused.take().unwrap().id;
        let html = text(answer).await;
        let csrf = value(&html, "csrf");
        pages.push((status, html.replace(&csrf, "").replace(id.as_str(), "")));
    }
    for number in 0..6 {
        world.log_in(&format!("guess{number}"), "").await;
    }
    let locked = world.log_in("right", "").await;
    assert!(world.login.sessions.list().is_empty());
    let id: refusal::Id = world.record.refused.take().unwrap().id;
    let status = locked.status();
    let html = text(locked).await;
    let csrf = value(&html, "csrf");
    pages.push((status, html.replace(&csrf, "").replace(id.as_str(), "")));

    assert!(pages.windows(2).all(|pair| pair[0] == pair[1]));
}

/// Writes the pages where a person can look at them with a browser.
#[tokio::test]
#[ignore = "writes files to look at"]
async fn pages_to_look_at() {
    let mut world = World::new();
    let write = |name: &str, html: String| {
        std::fs::write(std::env::temp_dir().join(format!("page-{name}.html")), html).unwrap();
    };
    let page = world.get(&format!("https://{GATEWAY}/login")).await;
    write("login", text(page).await);
    write("wrong", text(world.log_in("wrong", "").await).await);
    world.log_in("right", "").await;
    let csrf = world.home_csrf().await;
    let token = world
        .post("/token", &format!("csrf={csrf}&label=Alice's+phone"))
        .await;
    write("token", text(token).await);
    write(
        "home",
        text(world.get(&format!("https://{GATEWAY}/")).await).await,
    );
    let missing = world.get(&format!("https://{GATEWAY}/nothing")).await;
    write("refusal", text(missing).await);
}
