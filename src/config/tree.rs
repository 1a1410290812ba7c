//! What the files say, before it has a meaning: keys and values with their places (the door to
//! `toml`).

use std::{
    collections::{BTreeMap, btree_map::Entry},
    fmt,
    ops::Range,
    path::PathBuf,
};

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::problem::{Place, Problem};

/// The texts that a configuration was read from; the main file first.
#[derive(Default)]
pub(super) struct Sources {
    files: Vec<Source>,
}

struct Source {
    path: PathBuf,
    text: String,
}

/// Where something stands: which file, and which bytes of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) file: usize,
    pub(super) start: usize,
    pub(super) end: usize,
}

/// How much of its line a problem may show: what stands there may be a secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shown {
    /// What stands before the place.
    Before,
    /// All of it.
    Line,
    /// What stands before the place, and in it.
    To,
}

impl Shown {
    /// Takes out of a problem's line what may not be shown.
    pub(super) fn cut(self, problem: &mut Problem) {
        let Some((line, place)) = problem.excerpt.as_mut().zip(problem.place) else {
            return;
        };
        let (length, end) = match self {
            Self::Before => (place.column - 1, "…"),
            Self::Line => return,
            Self::To => (place.column - 1 + place.width, " …"),
        };
        if length < line.chars().count() {
            *line = line.chars().take(length).chain(end.chars()).collect();
        }
    }
}

/// A value, its place, and the place of its key.
#[derive(Debug, Default)]
pub(super) struct Node {
    pub(super) key: Span,
    pub(super) span: Span,
    pub(super) value: Value,
}

/// A value as written.
#[derive(Debug)]
pub(super) enum Value {
    Array(Vec<Node>),
    Boolean(bool),
    Date,
    Float,
    /// `None` when it does not fit.
    Integer(Option<i64>),
    String(String),
    Table(Table),
    /// Not read further.
    TooDeep,
}

pub(super) type Table = BTreeMap<String, Node>;

impl Default for Value {
    fn default() -> Self {
        Self::Table(Table::new())
    }
}

impl Sources {
    /// Adds a text, and gives its number.
    pub(super) fn add(&mut self, path: PathBuf, text: String) -> usize {
        self.files.push(Source { path, text });
        self.files.len() - 1
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.files.len()
    }

    /// The path of one of them.
    pub(super) fn path(&self, file: usize) -> PathBuf {
        self.files
            .get(file)
            .map(|source| source.path.clone())
            .unwrap_or_default()
    }

    /// A problem at a place, with the line.
    pub(super) fn problem(&self, span: Span, key: &str, message: String) -> Problem {
        let found = self
            .files
            .get(span.file)
            .and_then(|source| line_of(&source.text, span.start..span.end));
        let (place, excerpt) = match found {
            Some((place, line)) => (Some(place), line.and_then(without_secrets)),
            None => (None, None),
        };
        Problem {
            file: self.path(span.file),
            place,
            key: key.to_owned(),
            message,
            meant: None,
            excerpt,
        }
    }

    /// `file:line`, to name a second place.
    pub(super) fn short_place(&self, span: Span) -> String {
        let line = self
            .files
            .get(span.file)
            .and_then(|source| line_of(&source.text, span.start..span.end))
            .map_or(1, |(place, _)| place.line);
        format!("{}:{line}", self.path(span.file).display())
    }

    /// Reads one of the texts as far as its syntax goes; says what is wrong with the syntax.
    pub(super) fn parse(&self, file: usize) -> (Table, Vec<(Span, String)>) {
        let Some(source) = self.files.get(file) else {
            return (Table::new(), Vec::new());
        };
        if let Some(dot) = too_many_dots(&source.text) {
            let message = "key has too many parts".to_owned();
            return (Table::new(), vec![(span(file, dot..dot + 1), message)]);
        }
        let (document, errors) = DeTable::parse_recoverable(&source.text);
        let errors = errors
            .iter()
            .map(|error| (error.span().unwrap_or_default(), error.message()));
        let errors = syntax_problems(&source.text, errors)
            .into_iter()
            .map(|(range, message)| (span(file, range), message))
            .collect();
        (table(document.into_inner(), file, 0), errors)
    }
}

impl fmt::Debug for Sources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list()
            .entries(self.files.iter().map(|source| &source.path))
            .finish()
    }
}

impl Value {
    /// What it is, for messages.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Array(_) => "an array",
            Self::Boolean(_) => "a boolean",
            Self::Date => "a date",
            Self::Float => "a number with a point",
            Self::Integer(_) => "a number",
            Self::String(_) => "a string",
            Self::Table(_) => "a table",
            Self::TooDeep => "nested this deeply",
        }
    }

    /// The same without places. Dates and the like, which no key takes, have been taken out.
    pub(super) fn plain(self) -> Option<toml::Value> {
        match self {
            Self::Array(nodes) => Some(toml::Value::Array(
                nodes
                    .into_iter()
                    .filter_map(|node| node.value.plain())
                    .collect(),
            )),
            Self::Boolean(value) => Some(toml::Value::Boolean(value)),
            Self::Integer(value) => value.map(toml::Value::Integer),
            Self::String(text) => Some(toml::Value::String(text)),
            Self::Table(table) => Some(toml::Value::Table(plain_table(table))),
            Self::Date | Self::Float | Self::TooDeep => None,
        }
    }
}

/// A table without places, as serde reads it.
pub(super) fn plain_table(table: Table) -> toml::Table {
    table
        .into_iter()
        .filter_map(|(key, node)| Some((key, node.value.plain()?)))
        .collect()
}

/// Adds one file's tables to those of the files before. `may_meet` says whether the table at a
/// path may have parts in two files; `twice` is told of all other keys that stand in two.
pub(super) fn merge(
    into: &mut Table,
    from: Table,
    path: &str,
    may_meet: &dyn Fn(&str, &Table, &Table) -> bool,
    twice: &mut dyn FnMut(&str, Span, Span),
) {
    for (key, node) in from {
        let path = join(path, &key);
        match into.entry(key) {
            Entry::Vacant(place) => {
                place.insert(node);
            }
            Entry::Occupied(mut first) => match (&mut first.get_mut().value, node.value) {
                (Value::Table(first), Value::Table(second)) if may_meet(&path, first, &second) => {
                    merge(first, second, &path, may_meet, twice);
                }
                _ => twice(&path, first.get().key, node.key),
            },
        }
    }
}

/// The path of a key of a table, quoted where TOML needs it.
pub(super) fn join(path: &str, key: &str) -> String {
    let bare = !key.is_empty()
        && key
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
    let dot = if path.is_empty() { "" } else { "." };
    if bare {
        format!("{path}{dot}{key}")
    } else {
        format!("{path}{dot}{key:?}")
    }
}

fn table(entries: DeTable<'_>, file: usize, depth: usize) -> Table {
    entries
        .into_iter()
        .map(|(key, value)| {
            let mut node = node(value, file, depth + 1);
            node.key = span(file, key.span());
            (key.into_inner().into_owned(), node)
        })
        .collect()
}

fn node(value: Spanned<DeValue<'_>>, file: usize, depth: usize) -> Node {
    let place = span(file, value.span());
    let value = match value.into_inner() {
        DeValue::Array(_) | DeValue::Table(_) if depth > MAX_DEPTH => Value::TooDeep,
        DeValue::Array(values) => Value::Array(
            values
                .into_iter()
                .map(|value| node(value, file, depth + 1))
                .collect(),
        ),
        DeValue::Boolean(value) => Value::Boolean(value),
        DeValue::Datetime(_) => Value::Date,
        DeValue::Float(_) => Value::Float,
        DeValue::Integer(number) => {
            Value::Integer(i64::from_str_radix(number.as_str(), number.radix()).ok())
        }
        DeValue::String(text) => Value::String(text.into_owned()),
        DeValue::Table(entries) => Value::Table(table(entries, file, depth)),
    };
    Node {
        key: place,
        span: place,
        value,
    }
}

fn span(file: usize, range: Range<usize>) -> Span {
    Span {
        file,
        start: range.start,
        end: range.end,
    }
}

/// Line and column of a range, and its line when that can be shown.
///
/// A line inside a text of several lines is not shown: it may be of a secret.
fn line_of(text: &str, range: Range<usize>) -> Option<(Place, Option<&str>)> {
    let start = text.floor_char_boundary(range.start.min(text.len()));
    let end = text.floor_char_boundary(range.end.clamp(start, text.len()));
    let (before, after) = text.split_at_checked(start)?;
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    let line_end = after
        .find('\n')
        .map_or(text.len(), |newline| start + newline);
    let line = text.get(line_start..line_end)?.trim_end_matches('\r');
    let about = text.get(start..end.min(line_start + line.len()).max(start))?;
    let place = Place {
        line: before.matches('\n').count() + 1,
        column: before.get(line_start..)?.chars().count() + 1,
        width: about.chars().count().max(1),
    };
    let above = text.get(..line_start)?;
    let inside_text = ["\"\"\"", "'''"]
        .iter()
        .any(|quotes| above.matches(quotes).count() % 2 == 1);
    Some((place, (!inside_text).then_some(line)))
}

/// A line as it may be shown: what stands after a key that sounds like a secret is left out,
/// unless it is only the place of one, and so is a password in a URL.
fn without_secrets(line: &str) -> Option<String> {
    let mut shown = line.to_owned();
    if line.len() > LONGEST_LINE {
        return None;
    }
    if let Some((before, rest)) = line.split_once("://")
        && let Some((_, host)) = rest.rsplit_once('@')
    {
        shown = format!("{before}://…@{host}");
    }
    let lower = shown.to_ascii_lowercase();
    let secret = SECRET_WORDS
        .iter()
        .filter_map(|word| lower.find(word))
        .filter_map(|word| Some(word + shown.get(word..)?.find('=')?))
        .min();
    if let Some(equals) = secret {
        let (key, value) = shown.split_at_checked(equals + 1)?;
        let value = value.trim_start().trim_start_matches(['"', '\'']);
        if !value.starts_with("file:") && !value.starts_with("env:") {
            shown = format!("{key} …");
        }
    }
    Some(shown)
}

/// The first dot too many in a dotted key, outside of strings and comments.
///
/// The parser bounds the parts of a key and the depth of tables, but not their product, and the
/// drop of what it makes recurses.
fn too_many_dots(text: &str) -> Option<usize> {
    let mut dots = 0;
    let mut rest = text;
    while let Some(next) = rest.chars().next() {
        let length = match next {
            '#' => rest.find('\n').unwrap_or(rest.len()),
            '"' | '\'' => string_length(rest, next),
            _ => next.len_utf8(),
        };
        match next {
            '.' => dots += 1,
            '=' | ',' | '\n' | '[' | ']' | '{' | '}' => dots = 0,
            _ => {}
        }
        if dots > MAX_DOTS {
            return Some(text.len() - rest.len());
        }
        rest = rest.get(length..)?;
    }
    None
}

/// The length of a string with its quotes; one that is not closed ends with its line or the text.
fn string_length(text: &str, quote: char) -> usize {
    let triple = text.chars().take(3).filter(|c| *c == quote).count() == 3;
    let quotes = if triple { 3 } else { 1 };
    let mut escaped = false;
    let mut seen = 0;
    for (at, c) in text.char_indices().skip(quotes) {
        if !triple && c == '\n' {
            return at;
        }
        seen = if c == quote && !escaped { seen + 1 } else { 0 };
        escaped = c == '\\' && quote == '"' && !escaped;
        if seen == quotes {
            return at + 1;
        }
    }
    text.len()
}

/// The errors that a person can act on: what only follows from an earlier one is left out.
fn syntax_problems<'a>(
    text: &str,
    errors: impl Iterator<Item = (Range<usize>, &'a str)>,
) -> Vec<(Range<usize>, String)> {
    let mut errors: Vec<_> = errors.collect();
    errors.sort_by_key(|(range, _)| range.start);
    // After a bracket that is never closed, each line to the end of the file is wrong.
    let unclosed = errors
        .iter()
        .any(|(_, message)| message.starts_with("unclosed"));
    let mut kept: Vec<(Range<usize>, String)> = Vec::new();
    let mut same_line_to = None;
    for (range, message) in errors {
        if same_line_to.is_some_and(|end| range.start <= end) {
            continue;
        }
        let after = text.get(range.start..).unwrap_or_default();
        same_line_to = Some(range.start + after.find('\n').unwrap_or(after.len()));
        if message == "duplicate key" {
            match first_of_two(text, &range) {
                Some(first) => {
                    let message = format!("stands here twice: the first is at line {first}");
                    kept.push((range, message));
                }
                // Keys of a table that stands twice, most likely: that has been said.
                None if kept.is_empty() => kept.push((range, "stands here twice".to_owned())),
                None => {}
            }
        } else if unclosed && ["array", "table"].iter().any(|word| message.contains(word)) {
            let closing = "a bracket before it is not closed";
            kept.push((range, format!("{message}; perhaps {closing}")));
            break;
        } else {
            kept.push((range, message.to_owned()));
        }
        if kept.len() == MAX_SYNTAX_PROBLEMS {
            break;
        }
    }
    kept
}

/// The line of the first of two equal keys or headers, given the place of the second.
fn first_of_two(text: &str, second: &Range<usize>) -> Option<usize> {
    let start = text.get(..second.start)?.rfind('\n').map_or(0, |n| n + 1);
    let (above, rest) = text.split_at_checked(start)?;
    let header = |line: &str| line.trim_start().starts_with('[');
    let name = |line: &str| -> Option<String> {
        let end = if header(line) { ']' } else { '=' };
        let (name, _) = line.split_once(end)?;
        Some(name.split_whitespace().collect())
    };
    let line = rest.lines().next()?;
    let wanted = name(line)?;
    let lines: Vec<&str> = above.lines().collect();
    let from = if header(line) {
        0
    } else {
        lines
            .iter()
            .rposition(|line| header(line))
            .map_or(0, |header| header + 1)
    };
    lines
        .iter()
        .enumerate()
        .skip(from)
        .find(|(_, above)| header(above) == header(line) && name(above).as_ref() == Some(&wanted))
        .map(|(index, _)| index + 1)
}

/// Words in keys whose values are not shown.
const SECRET_WORDS: [&str; 7] = ["pass", "pw", "secret", "key", "token", "cred", "auth"];

/// Keys of ours have at most four parts.
const MAX_DOTS: usize = 8;

/// Deeper than any table of ours.
const MAX_DEPTH: usize = 12;

/// More would only repeat the first.
const MAX_SYNTAX_PROBLEMS: usize = 20;

const LONGEST_LINE: usize = 2000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_shown_without_what_may_be_a_secret() {
        let shown = |line| without_secrets(line).unwrap();

        assert_eq!(shown("bind_password = \"hunter2\""), "bind_password = …");
        assert_eq!(shown("a = { bind_pw = \"hunter2\" }"), "a = { bind_pw = …");
        assert_eq!(shown("Secret=\"hunter2\""), "Secret= …");
        assert_eq!(
            shown("servers = [\"ldap://me:hunter2@dc1\"]"),
            "servers = [\"ldap://…@dc1\"]"
        );
        assert_eq!(
            shown("bind_password = \"file:/run/x\""),
            "bind_password = \"file:/run/x\""
        );
        assert_eq!(shown("host = \"gw\""), "host = \"gw\"");
    }

    #[test]
    fn a_line_inside_a_longer_text_is_not_shown() {
        let text = "a = \"\"\"\nhunter2\nx\"\"\"\n";
        let (place, line) = line_of(text, 10..12).unwrap();

        assert_eq!((place.line, place.column), (2, 3));
        assert_eq!(line, None);
    }

    #[test]
    fn dots_count_in_keys_only() {
        let fine = "a = \"1.2.3.4.5.6.7.8.9.10\" # 1.2.3.4.5.6.7.8.9.10\n\
                    b = '1.2.3.4.5.6.7.8.9.10\\'\nc = 1.0\n\
                    d = \"\"\"\n1.2.3.4.5.6.7.8.9.10 \\\"\"\" \"\" \"\"\"\n\
                    e = '''1.2.3.4.5.6.7.8.9.10'''\na.b.c.d = 1\n";
        assert_eq!(too_many_dots(fine), None);

        assert_eq!(too_many_dots("x = 1\na.b.c.d.e.f.g.h.i.j = 1"), Some(23));
        assert_eq!(too_many_dots("[a.\"b.c\".d.e.f.g.h.i.j.k]"), Some(22));
    }

    #[test]
    fn columns_count_characters() {
        let text = "x = 1\r\n\"äöü\" = true\r\n";
        let at = text.find("true").unwrap();
        let (place, line) = line_of(text, at..at + 4).unwrap();

        assert_eq!((place.line, place.column, place.width), (2, 9, 4));
        assert_eq!(line, Some("\"äöü\" = true"));
    }
}
