//! A program to measure beside the gateway, as a file in `benches/peers` describes it.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use serde::Deserialize;

/// A program that is not ours, and its configuration.
#[derive(Clone, Debug)]
pub(super) struct Peer {
    /// As the file says.
    pub(super) about: About,
    /// Where the program is.
    pub(super) program: PathBuf,
    /// The line that it prints of its version.
    pub(super) version: String,
    template: String,
}

/// The file as written.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct About {
    /// What tables call it.
    pub(super) name: String,
    /// What it is measured as, when that is less than a gateway.
    #[serde(rename = "about")]
    pub(super) bound: Option<String>,
    program: PathBuf,
    version: Vec<String>,
    template: PathBuf,
    /// Its arguments.
    pub(super) command: Vec<String>,
    /// Whether it has an access log of its own, and where that goes.
    #[serde(default)]
    pub(super) log: Log,
    /// The works that each port serves.
    pub(super) ports: BTreeMap<String, Vec<String>>,
}

/// An access log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(from = "LogWord")]
pub(super) enum Log {
    /// To the file that the template names.
    File,
    /// It has none.
    #[default]
    None,
    /// To standard output.
    Stdout,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum LogWord {
    Flag(bool),
    Word(String),
}

impl From<LogWord> for Log {
    fn from(word: LogWord) -> Self {
        match word {
            LogWord::Flag(true) => Self::File,
            LogWord::Word(word) if word == "stdout" => Self::Stdout,
            LogWord::Flag(false) | LogWord::Word(_) => Self::None,
        }
    }
}

impl Peer {
    /// Reads a description and its template, and asks the program for its version; `None` when
    /// the program is not installed.
    ///
    /// # Errors
    ///
    /// When the files cannot be read or are wrong.
    pub(super) fn load(path: &Path) -> Result<(About, Option<Self>), Error> {
        let failed = |source| Error::Read {
            path: path.to_owned(),
            source,
        };
        let text = fs::read_to_string(path).map_err(failed)?;
        let about: About = toml::from_str(&text).map_err(|source| Error::Parse {
            path: path.to_owned(),
            source: Box::new(source),
        })?;
        let file = path.with_file_name(&about.template);
        let template =
            fs::read_to_string(&file).map_err(|source| Error::Read { path: file, source })?;
        let Some(program) = find(&about.program) else {
            return Ok((about, None));
        };
        let peer = Self {
            version: version(&program, &about.version),
            program,
            template,
            about: about.clone(),
        };
        Ok((about, Some(peer)))
    }

    /// The name of the port that serves a work: the one with the longest beginning of its id.
    pub(super) fn port(&self, work: &str) -> Option<&str> {
        let of = |works: &[String]| {
            let begins = works.iter().filter(|known| begins(work, known));
            begins.map(String::len).max()
        };
        let ports = self.about.ports.iter();
        let ports = ports.filter_map(|(name, works)| Some((of(works)?, name)));
        ports.max().map(|(_, name)| name.as_str())
    }

    /// Its configuration with these values.
    ///
    /// # Errors
    ///
    /// When it names what has no value.
    pub(super) fn configuration(
        &self,
        values: &BTreeMap<String, String>,
        logging: bool,
    ) -> Result<String, Error> {
        let mut lines = String::new();
        for line in self.template.lines() {
            let (kept, line) = match (line.strip_prefix(LOG), line.strip_prefix(QUIET)) {
                (Some(line), _) => (logging, line),
                (_, Some(line)) => (!logging, line),
                _ => (true, line),
            };
            if kept {
                lines.push_str(&fill(line, values)?);
                lines.push('\n');
            }
        }
        Ok(lines)
    }
}

/// Whether a work's id is `prefix`, or goes on after it with a hyphen.
pub(super) fn begins(work: &str, prefix: &str) -> bool {
    work.strip_prefix(prefix)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
}

/// A text with its `{{names}}` replaced.
///
/// # Errors
///
/// When it names what has no value.
pub(super) fn fill(text: &str, values: &BTreeMap<String, String>) -> Result<String, Error> {
    let mut filled = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("{{") {
        let Some((name, after)) = after.split_once("}}") else {
            break;
        };
        let value = values.get(name);
        let value = value.ok_or_else(|| Error::Name(name.to_owned()))?;
        filled.push_str(before);
        filled.push_str(value);
        rest = after;
    }
    filled.push_str(rest);
    Ok(filled)
}

/// Where a shell would find a program, or a daemon's administrator.
pub(super) fn find(program: &Path) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let daemons = ["/usr/sbin", "/sbin"].map(PathBuf::from);
    let mut folders = std::env::split_paths(&path).chain(daemons);
    folders.find_map(|folder| fs::canonicalize(folder.join(program)).ok())
}

/// The first line with a digit that a program prints when asked for its version, without its path.
pub(super) fn version(program: &Path, arguments: &[String]) -> String {
    let output = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .output();
    let text = output.map_or_else(
        |error: io::Error| error.to_string(),
        |output| String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned(),
    );
    let text = text.replace(&*program.to_string_lossy(), "");
    let line = text.lines().find(|line| line.contains(char::is_numeric));
    let line = line.unwrap_or("unknown").trim();
    line.trim_start_matches("version:").trim().to_owned()
}

/// Why a peer cannot be measured.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// A template names what has no value.
    #[error("a template names {{{{{0}}}}}, which has no value")]
    Name(String),
    /// A description is wrong.
    #[error("{path} describes no peer")]
    Parse {
        /// Which.
        path: PathBuf,
        /// What the TOML parser says.
        source: Box<toml::de::Error>,
    },
    /// A file cannot be read.
    #[error("{path} cannot be read")]
    Read {
        /// Which.
        path: PathBuf,
        /// What the file system says.
        source: io::Error,
    },
}

const LOG: &str = "{{log}}";
const QUIET: &str = "{{quiet}}";

#[cfg(test)]
mod tests {
    use super::*;

    fn values() -> BTreeMap<String, String> {
        let pairs = [("a", "1"), ("port.x", "80")];
        pairs.map(|(k, v)| (k.to_owned(), v.to_owned())).into()
    }

    fn peer(template: &str, ports: &str) -> Peer {
        let text = format!(
            "name = 'x'\nprogram = 'x'\nversion = ['-v']\ntemplate = 'x.conf'\ncommand = []\n\
             log = 'stdout'\n[ports]\n{ports}"
        );
        Peer {
            about: toml::from_str(&text).unwrap(),
            program: PathBuf::new(),
            version: String::new(),
            template: template.to_owned(),
        }
    }

    #[test]
    fn names_are_replaced_and_single_braces_stay() {
        let text = fill("listen {{port.x}} { {{a}} } {{a", &values()).unwrap();

        assert_eq!(text, "listen 80 { 1 } {{a");
    }

    #[test]
    fn a_name_without_a_value_is_a_mistake() {
        let error = fill("{{b}}", &values()).unwrap_err();

        assert_eq!(
            error.to_string(),
            "a template names {{b}}, which has no value"
        );
    }

    #[test]
    fn lines_of_the_log_are_there_with_the_log_alone() {
        let peer = peer("x {{a}}\n{{log}}log on\n{{quiet}}log off\n", "");

        assert_eq!(
            peer.configuration(&values(), true).unwrap(),
            "x 1\nlog on\n"
        );
        assert_eq!(
            peer.configuration(&values(), false).unwrap(),
            "x 1\nlog off\n"
        );
        assert_eq!(peer.about.log, Log::Stdout);
    }

    #[test]
    fn a_work_goes_to_the_port_that_names_it_most_exactly() {
        let ports = "https = ['h1', 'handshake']\nrsa = ['handshake-rsa']\n";
        let peer = peer("", ports);

        assert_eq!(peer.port("handshake-p256"), Some("https"));
        assert_eq!(peer.port("handshake-rsa"), Some("rsa"));
        assert_eq!(peer.port("h1"), Some("https"));
        assert_eq!(peer.port("h11"), None);
        assert_eq!(peer.port("h2"), None);
    }

    #[test]
    fn every_peer_of_ours_is_described_well() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/peers");
        let mut found = 0;
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path
                .extension()
                .is_some_and(|extension| extension == "toml")
            {
                let (about, _installed) = Peer::load(&path).unwrap();
                let known = |work: &String| {
                    super::super::plan::ROWS
                        .iter()
                        .any(|row| begins(row.id, work))
                };
                assert!(about.ports.values().flatten().all(known), "{}", about.name);
                found += 1;
            }
        }
        assert!(found >= 5);
    }
}
