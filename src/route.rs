//! A host and a judged path to an app.

use std::sync::Arc;

use crate::config::App;

/// The apps by host and path prefix.
#[derive(Debug)]
pub struct Routes {}

impl Routes {
    /// For the apps of a configuration.
    pub fn new(_apps: &[Arc<App>]) -> Self {
        todo!()
    }

    /// The app with the longest path prefix, in whole segments.
    pub fn find(&self, _host: &str, _path: &str) -> Option<&Arc<App>> {
        todo!()
    }

    /// Whether any app has this host.
    pub fn has_host(&self, _host: &str) -> bool {
        todo!()
    }
}
