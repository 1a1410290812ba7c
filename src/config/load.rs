//! From files to a [`Config`]: reads them, joins them, checks the tree, resolves its meaning.

use std::{
    collections::BTreeMap,
    fmt, fs,
    io::{self, Read},
    path::{Path, PathBuf},
};

use serde::Deserialize;

use super::{
    Config,
    file::File,
    problem::{Problem, Problems},
    resolve, schema,
    tree::{self, Node, Sources, Span, Table, Value},
};

/// Whether the files that a configuration names are looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Files {
    /// They must be there and readable; secrets are read.
    Checked,
    /// They are not touched, and every secret is empty: good for checking a text, not for running.
    Unchecked,
}

impl Config {
    /// Loads a file, and `conf.d/*.toml` beside it.
    ///
    /// # Errors
    ///
    /// Everything that is wrong, each problem with its place.
    pub fn load(path: &Path) -> Result<Self, Problems> {
        Self::load_with(path, Files::Checked)
    }

    /// Loads a file, and `conf.d/*.toml` beside it, with or without the files that they name.
    ///
    /// # Errors
    ///
    /// Everything that is wrong, each problem with its place.
    pub fn load_with(path: &Path, files: Files) -> Result<Self, Problems> {
        let mut problems = Problems::new();
        let mut sources = Sources::default();
        for path in std::iter::once(path.to_owned()).chain(more_files(path, &mut problems)) {
            match read(&path) {
                Ok(text) => {
                    sources.add(path, text);
                }
                Err(message) => problems.push_file(&path, None, message),
            }
        }
        if problems.is_empty() {
            assemble(sources, files)
        } else {
            Err(problems)
        }
    }

    /// Reads a text as if it were a file at `path`; paths in it are relative to that.
    ///
    /// # Errors
    ///
    /// Everything that is wrong, each problem with its place.
    pub fn parse(text: &str, path: &Path, files: Files) -> Result<Self, Problems> {
        let mut sources = Sources::default();
        sources.add(path.to_owned(), text.to_owned());
        assemble(sources, files)
    }

    /// A problem of a later stage about one key, at its place in the file.
    pub fn problem(&self, key: &str, message: impl Into<String>) -> Problem {
        self.origin.problem(key, message.into())
    }
}

/// Where each key of a configuration stands.
pub(super) struct Origin {
    pub(super) sources: Sources,
    places: BTreeMap<String, Span>,
}

impl Origin {
    /// A problem about a key, or about the table in which it is missing.
    pub(super) fn problem(&self, key: &str, message: String) -> Problem {
        let span = self.nearest(key).unwrap_or_default();
        self.sources.problem(span, key, message)
    }

    /// `file:line` of a key, to name a second place.
    pub(super) fn short_place(&self, key: &str) -> String {
        self.sources
            .short_place(self.nearest(key).unwrap_or_default())
    }

    /// A key stands in the files, whether or not its value is good.
    pub(super) fn has(&self, key: &str) -> bool {
        self.places.contains_key(key)
    }

    /// The directory of the file in which a key stands.
    pub(super) fn directory(&self, key: &str) -> PathBuf {
        let file = self.nearest(key).unwrap_or_default().file;
        let path = self.sources.path(file);
        path.parent().map(Path::to_owned).unwrap_or_default()
    }

    fn nearest(&self, key: &str) -> Option<Span> {
        let mut key = key;
        loop {
            if let Some(span) = self.places.get(key) {
                return Some(*span);
            }
            let (above, _) = key.rsplit_once(['.', '['])?;
            key = above;
        }
    }
}

impl fmt::Debug for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.sources.fmt(f)
    }
}

fn assemble(sources: Sources, files: Files) -> Result<Config, Problems> {
    let mut problems = Problems::new();
    let mut broken_from: BTreeMap<usize, usize> = BTreeMap::new();
    let mut tree = Table::new();
    for file in 0..sources.len() {
        let (table, errors) = sources.parse(file);
        for (span, message) in errors {
            let first = broken_from.entry(file).or_insert(span.start);
            *first = span.start.min(*first);
            problems.push(sources.problem(span, "", message));
        }
        tree::merge(
            &mut tree,
            table,
            "",
            &schema::may_meet,
            &mut |key, first, second| {
                let message = format!(
                    "stands in two files: the first is {}",
                    sources.short_place(first)
                );
                problems.push(sources.problem(second, key, message));
            },
        );
    }

    let mut places = BTreeMap::new();
    note_places(&tree, "", &mut places);
    let main = Span::default();
    for finding in schema::check(&mut tree, main) {
        // After a slip in the syntax, keys may seem missing or stand in another table.
        let reliable = match broken_from.get(&finding.span.file) {
            Some(from) => finding.span.end <= *from && finding.span.end > 0,
            None => true,
        };
        if reliable && (broken_from.is_empty() || !finding.missing) {
            let mut problem = sources.problem(finding.span, &finding.key, finding.message);
            problem.meant = finding.meant;
            finding.shown.cut(&mut problem);
            problems.push(problem);
        }
    }
    let origin = Origin { sources, places };
    if !broken_from.is_empty() {
        problems.sort();
        return Err(problems);
    }

    match File::deserialize(tree::plain_table(tree)) {
        Ok(file) => resolve::resolve(file, origin, files, problems),
        Err(_not) => {
            if problems.is_empty() {
                let message = "cannot be read, although each key by itself is good".to_owned();
                problems.push(origin.problem("", message));
            }
            problems.sort();
            Err(problems)
        }
    }
}

/// Notes where each value stands, and for tables where their names stand.
fn note_places(table: &Table, path: &str, places: &mut BTreeMap<String, Span>) {
    for (key, node) in table {
        note_node(node, tree::join(path, key), places);
    }
}

fn note_node(node: &Node, path: String, places: &mut BTreeMap<String, Span>) {
    match &node.value {
        Value::Table(table) => note_places(table, &path, places),
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                note_node(item, format!("{path}[{index}]"), places);
            }
        }
        Value::Boolean(_)
        | Value::Date
        | Value::Float
        | Value::Integer(_)
        | Value::String(_)
        | Value::TooDeep => {}
    }
    places.insert(path, node.span);
}

/// `conf.d/*.toml` beside the main file, sorted by name.
fn more_files(main: &Path, problems: &mut Problems) -> Vec<PathBuf> {
    let directory = main.with_file_name("conf.d");
    let entries = match fs::read_dir(&directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Vec::new(),
        Err(error) => {
            problems.push_file(&directory, None, format!("cannot be read: {error}"));
            return Vec::new();
        }
    };
    let mut found: Vec<PathBuf> = entries
        .filter_map(Result::ok)
        .map(|entry| entry.path())
        .filter(|path| {
            let hidden = path
                .file_name()
                .is_some_and(|name| name.to_string_lossy().starts_with('.'));
            !hidden
                && path
                    .extension()
                    .is_some_and(|extension| extension == "toml")
        })
        .collect();
    found.sort();
    found
}

fn read(path: &Path) -> Result<String, String> {
    let cannot = |error: io::Error| format!("cannot be read: {error}");
    // Opening a pipe would wait for its writer.
    if !fs::metadata(path).map_err(cannot)?.is_file() {
        return Err("is not a file".to_owned());
    }
    let file = fs::File::open(path).map_err(cannot)?;
    let mut bytes = Vec::new();
    let mut bounded = file.take(MAX_FILE + 1);
    bounded.read_to_end(&mut bytes).map_err(cannot)?;
    if u64::try_from(bytes.len()).is_ok_and(|length| length > MAX_FILE) {
        return Err("is larger than 4 MiB".to_owned());
    }
    String::from_utf8(bytes).map_err(|error| {
        format!(
            "is not UTF-8 text (byte {})",
            error.utf8_error().valid_up_to()
        )
    })
}

/// Far more than any configuration.
const MAX_FILE: u64 = 4 << 20;
