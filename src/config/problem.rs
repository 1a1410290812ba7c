//! Problems: everything that is wrong with a configuration, each with its place.

use std::{
    fmt,
    path::{Path, PathBuf},
};

/// Something wrong in a file, with what a person needs to mend it.
///
/// Printed as one line: `file:line:column: key: message`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The file.
    pub file: PathBuf,
    /// Where in the file, when that is known.
    pub place: Option<Place>,
    /// The key, as `pool.intranet.nodes[0]`; empty when it is about no key.
    pub key: String,
    /// What is wrong.
    pub message: String,
    /// What was probably meant.
    pub meant: Option<String>,
    /// The line, with what may be a secret taken out.
    pub excerpt: Option<String>,
}

/// Where something stands in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// Counted from 1.
    pub line: usize,
    /// In characters, counted from 1.
    pub column: usize,
    /// How many characters of the line it is about.
    pub width: usize,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.file.display())?;
        if let Some(place) = self.place {
            write!(f, "{}:{}:", place.line, place.column)?;
        }
        if !self.key.is_empty() {
            write!(f, " {}:", self.key)?;
        }
        write!(f, " {}", self.message)?;
        if let Some(meant) = &self.meant {
            write!(f, "; did you mean {meant}?")?;
        }
        Ok(())
    }
}

/// Everything that is wrong with a configuration; by file and place.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Problems {
    list: Vec<Problem>,
}

impl Problems {
    /// None.
    pub fn new() -> Self {
        Self::default()
    }

    /// Nothing is wrong.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.list.len()
    }

    /// Each of them, those of one file together and in the order of its lines.
    pub fn iter(&self) -> std::slice::Iter<'_, Problem> {
        self.list.iter()
    }

    /// Adds one.
    pub fn push(&mut self, problem: Problem) {
        self.list.push(problem);
    }

    /// Adds one about a file that is no TOML (a policy, a certificate), at a line and a column if
    /// they are known. The line is not shown: the file may be a key.
    pub fn push_file(
        &mut self,
        file: &Path,
        place: Option<(usize, usize)>,
        message: impl Into<String>,
    ) {
        self.push_guess(file, place, message, None);
    }

    /// [`Problems::push_file`], with what was probably meant.
    pub fn push_guess(
        &mut self,
        file: &Path,
        place: Option<(usize, usize)>,
        message: impl Into<String>,
        meant: Option<String>,
    ) {
        self.push(Problem {
            file: file.to_owned(),
            place: place.map(|(line, column)| Place {
                line,
                column,
                width: 1,
            }),
            key: String::new(),
            message: message.into(),
            meant,
            excerpt: None,
        });
    }

    /// Adds all of another list.
    pub fn extend(&mut self, others: impl IntoIterator<Item = Problem>) {
        self.list.extend(others);
    }

    /// Puts those of one file together, in the order of its lines.
    ///
    /// Files keep the order in which they were first named: the main file stays in front.
    pub fn sort(&mut self) {
        let mut files: Vec<PathBuf> = Vec::new();
        for problem in &self.list {
            if !files.contains(&problem.file) {
                files.push(problem.file.clone());
            }
        }
        self.list.sort_by_key(|problem| {
            let file = files.iter().position(|file| *file == problem.file);
            (file, problem.place)
        });
    }
}

impl IntoIterator for Problems {
    type Item = Problem;
    type IntoIter = std::vec::IntoIter<Problem>;

    fn into_iter(self) -> Self::IntoIter {
        self.list.into_iter()
    }
}

impl<'a> IntoIterator for &'a Problems {
    type Item = &'a Problem;
    type IntoIter = std::slice::Iter<'a, Problem>;

    fn into_iter(self) -> Self::IntoIter {
        self.list.iter()
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.list.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            problem.fmt(f)?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}

/// The one of `known` that `text` is probably a slip of.
pub(crate) fn nearest<'a>(text: &str, known: impl Iterator<Item = &'a str>) -> Option<String> {
    if text.len() > LONGEST_SLIP {
        return None;
    }
    let lower = text.to_ascii_lowercase().replace('-', "_");
    known
        .map(|name| {
            let like = name.to_ascii_lowercase().replace('-', "_");
            (strsim::damerau_levenshtein(&lower, &like), name)
        })
        .filter(|(distance, name)| {
            let length = text.chars().count().max(name.chars().count());
            *distance <= length.div_ceil(3) && *distance < length
        })
        .min()
        .map(|(_, name)| name.to_owned())
}

/// Longer texts are no slip of a name; comparing them would cost time.
const LONGEST_SLIP: usize = 100;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_finds_what_was_meant() {
        let keys = ["nodes", "strategy", "kept_connections"];
        let meant = |text| nearest(text, keys.into_iter());

        assert_eq!(meant("node").as_deref(), Some("nodes"));
        assert_eq!(meant("stratgey").as_deref(), Some("strategy"));
        assert_eq!(
            meant("kept-connections").as_deref(),
            Some("kept_connections")
        );
        assert_eq!(meant("timeout"), None);
        assert_eq!(meant(&"n".repeat(1 << 20)), None);
    }

    #[test]
    fn problems_of_a_file_stand_together_in_the_order_of_lines() {
        let mut problems = Problems::new();
        problems.push_file(Path::new("main"), Some((9, 1)), "c");
        problems.push_file(Path::new("a"), Some((1, 1)), "d");
        problems.push_file(Path::new("main"), Some((2, 7)), "b");
        problems.push_file(Path::new("main"), None, "a");
        problems.sort();

        assert_eq!(
            problems.to_string(),
            "main: a\nmain:2:7: b\nmain:9:1: c\na:1:1: d"
        );
    }
}
