//! A host and a judged path to an app.

use std::{collections::HashMap, sync::Arc};

use crate::config::{App, Authorization};

/// The apps by host and path prefix. Finding one costs the same among one app and among many.
#[derive(Debug)]
pub struct Routes {
    hosts: HashMap<Arc<str>, Host>,
}

/// The apps of one host.
#[derive(Debug, Default)]
struct Host {
    /// By path prefix, without its final slash, so that `/Citrix/` also covers `/Citrix`.
    apps: HashMap<Box<str>, Arc<App>>,
    /// How many segments these prefixes have, the most first.
    depths: Vec<usize>,
    /// The one with the longest prefix for which one has to log in, if there is one.
    guarded: Option<Arc<App>>,
}

impl Routes {
    /// For the apps of a configuration, which has no two with the same host and prefix.
    pub fn new(apps: &[Arc<App>]) -> Self {
        let mut hosts: HashMap<Arc<str>, Host> = HashMap::new();
        for app in apps {
            let name = Arc::from(app.host.to_ascii_lowercase());
            hosts.entry(name).or_default().add(app);
        }
        Self { hosts }
    }

    /// The app with the longest path prefix, in whole segments. `host` is lower case and has no
    /// port; `path` is the judged one.
    pub fn find(&self, host: &str, path: &str) -> Option<&Arc<App>> {
        let host = self.hosts.get(host)?;
        let mut depths = host.depths.iter();
        depths.find_map(|&depth| host.apps.get(first_segments(path, depth)?))
    }

    /// An app of this host for which one has to log in, if there is one.
    pub fn guarded(&self, host: &str) -> Option<&Arc<App>> {
        self.hosts.get(host)?.guarded.as_ref()
    }

    /// Whether any app has this host.
    pub fn has_host(&self, host: &str) -> bool {
        self.hosts.contains_key(host)
    }
}

impl Host {
    fn add(&mut self, app: &Arc<App>) {
        let prefix = app.path.trim_end_matches('/');
        let depth = prefix.matches('/').count();
        if let Err(place) = self.depths.binary_search_by(|known| depth.cmp(known)) {
            self.depths.insert(place, depth);
        }
        self.apps.insert(prefix.into(), Arc::clone(app));
        let longer = |known: &Arc<App>| prefix.len() > known.path.trim_end_matches('/').len();
        if app.authorization == Authorization::Gateway && self.guarded.as_ref().is_none_or(longer) {
            self.guarded = Some(Arc::clone(app));
        }
    }
}

/// So many segments from the start of a path, which has as many.
fn first_segments(path: &str, count: usize) -> Option<&str> {
    let mut ends = path.match_indices('/').map(|(at, _)| at);
    if let Some(last) = count.checked_sub(1) {
        ends.nth(last)?;
    }
    match ends.next() {
        Some(end) => path.get(..end),
        None => Some(path),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::for_test;

    fn routes() -> Routes {
        let pool = for_test::pool("p", &["127.0.0.1:1"]);
        let app = |name: &str, host: &str, path: &str| {
            let mut app = for_test::app(name, Arc::clone(&pool));
            app.host = host.into();
            app.path = path.into();
            Arc::new(app)
        };
        Routes::new(&[
            app("all", "a.test", "/"),
            app("citrix", "a.test", "/Citrix"),
            app("store", "a.test", "/Citrix/Store/"),
            app("deep", "b.test", "/x"),
        ])
    }

    fn name(host: &str, path: &str) -> Option<String> {
        routes().find(host, path).map(|app| app.name.to_string())
    }

    #[test]
    fn the_longest_prefix_in_whole_segments_wins() {
        for (path, app) in [
            ("/", "all"),
            ("/Citrixx", "all"),
            ("/citrix", "all"),
            ("/Citrix", "citrix"),
            ("/Citrix/", "citrix"),
            ("/Citrix/Storefront", "citrix"),
            ("/Citrix/Store", "store"),
            ("/Citrix/Store/x", "store"),
        ] {
            assert_eq!(name("a.test", path).as_deref(), Some(app), "{path}");
        }
    }

    #[test]
    fn a_prefix_may_end_with_a_slash_or_not() {
        let pool = for_test::pool("p", &["127.0.0.1:1"]);
        let app = |name: &str, path: &str| {
            let mut app = for_test::app(name, Arc::clone(&pool));
            app.host = "a.test".into();
            app.path = path.into();
            Arc::new(app)
        };
        let routes = Routes::new(&[app("x", "/x/"), app("deep", "/x/y/z")]);
        let name = |path| routes.find("a.test", path).map(|app| &*app.name);
        assert_eq!(name("/x"), Some("x"));
        assert_eq!(name("/x/y"), Some("x"));
        assert_eq!(name("/x/y/z/"), Some("deep"));
        assert_eq!(name("*"), None);
        assert_eq!(name(""), None);
    }

    #[test]
    fn a_path_or_host_that_no_app_has_finds_nothing() {
        assert_eq!(name("b.test", "/"), None);
        assert_eq!(name("c.test", "/x"), None);
        assert!(routes().has_host("b.test"));
        assert!(!routes().has_host("c.test"));
    }
}
