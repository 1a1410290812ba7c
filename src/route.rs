//! A host and a judged path to an app.

use std::{collections::HashMap, sync::Arc};

use crate::config::{App, Authorization};

/// The apps by host and path prefix.
#[derive(Debug)]
pub struct Routes {
    /// Apps of each host, longest path first.
    hosts: HashMap<Arc<str>, Vec<Arc<App>>>,
}

impl Routes {
    /// For the apps of a configuration.
    pub fn new(apps: &[Arc<App>]) -> Self {
        let mut hosts: HashMap<Arc<str>, Vec<Arc<App>>> = HashMap::new();
        for app in apps {
            let host = Arc::from(app.host.to_ascii_lowercase());
            hosts.entry(host).or_default().push(Arc::clone(app));
        }
        for apps in hosts.values_mut() {
            apps.sort_by_key(|app| std::cmp::Reverse(prefix(app).len()));
        }
        Self { hosts }
    }

    /// The app with the longest path prefix, in whole segments. `host` is lower case and has no
    /// port; `path` is the judged one.
    pub fn find(&self, host: &str, path: &str) -> Option<&Arc<App>> {
        self.hosts
            .get(host)?
            .iter()
            .find(|app| covers(prefix(app), path))
    }

    /// An app of this host for which one has to log in, if there is one.
    pub fn guarded(&self, host: &str) -> Option<&Arc<App>> {
        let mut apps = self.hosts.get(host)?.iter();
        apps.find(|app| app.authorization == Authorization::Gateway)
    }

    /// Whether any app has this host.
    pub fn has_host(&self, host: &str) -> bool {
        self.hosts.contains_key(host)
    }
}

/// The prefix without its final slash, so that `/Citrix/` also covers `/Citrix`.
fn prefix(app: &App) -> &str {
    app.path.trim_end_matches('/')
}

fn covers(prefix: &str, path: &str) -> bool {
    path.strip_prefix(prefix)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
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
    fn a_path_or_host_that_no_app_has_finds_nothing() {
        assert_eq!(name("b.test", "/"), None);
        assert_eq!(name("c.test", "/x"), None);
        assert!(routes().has_host("b.test"));
        assert!(!routes().has_host("c.test"));
    }
}
