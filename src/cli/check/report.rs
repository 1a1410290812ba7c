//! Problems and warnings as a person reads them: place, what, the line, what was meant.

use std::fmt::Write;

use crate::config::{Place, Problem, Problems};

/// All problems, and how many they are.
pub(super) fn problems(problems: &Problems, color: bool) -> String {
    let mut page = String::new();
    for problem in problems {
        one(&mut page, problem, None, color);
    }
    let count = problems.len();
    let noun = if count == 1 { "problem" } else { "problems" };
    // Writing to a string cannot fail.
    let _infallible = writeln!(page, "{count} {noun}");
    page
}

/// All warnings.
pub(super) fn warnings(warnings: &Problems, color: bool) -> String {
    let mut page = String::new();
    for warning in warnings {
        one(&mut page, warning, Some("warning:"), color);
    }
    page
}

/// `file:line:column: key: message`, then the line with a mark below what is meant.
fn one(page: &mut String, problem: &Problem, label: Option<&str>, color: bool) {
    let mut words = vec![clean(&place_of(problem))];
    words.extend(label.map(str::to_owned));
    if !problem.key.is_empty() {
        words.push(format!("{}:", clean(&problem.key)));
    }
    let head = words.len();
    words.extend(clean(&problem.message).split(' ').map(str::to_owned));
    if let Some(meant) = &problem.meant
        && let Some(last) = words.last_mut()
    {
        last.push(';');
        let question = format!("did you mean {}?", clean(meant));
        words.extend(question.split(' ').map(str::to_owned));
    }

    let mut column = 0;
    for (index, word) in words.iter().enumerate() {
        let width = word.chars().count();
        if index > 0 && column + 1 + width > WIDTH {
            page.push_str("\n    ");
            column = 4;
        } else if index > 0 {
            page.push(' ');
            column += 1;
        }
        column += width;
        let style = if label.is_some() { YELLOW } else { RED };
        if color && (1..head).contains(&index) {
            let _infallible = write!(page, "{style}{word}{PLAIN}");
        } else if color && index == 0 {
            let _infallible = write!(page, "{BOLD}{word}{PLAIN}");
        } else {
            page.push_str(word);
        }
    }
    page.push('\n');
    if let (Some(place), Some(line)) = (problem.place, &problem.excerpt) {
        excerpt(page, place, line, color);
    }
    page.push('\n');
}

fn place_of(problem: &Problem) -> String {
    let file = problem.file.display();
    match problem.place {
        Some(Place { line, column, .. }) => format!("{file}:{line}:{column}:"),
        None => format!("{file}:"),
    }
}

/// The line, or the part of a long line that it is about.
fn excerpt(page: &mut String, place: Place, line: &str, color: bool) {
    let gutter = format!("{:>6} | ", place.line);
    let room = WIDTH - gutter.len();
    let line: Vec<char> = clean(line).chars().collect();
    let column = place.column - 1;
    // What was left out of the line, a secret perhaps, cannot be marked.
    let column = column.min(line.len());
    let from = if line.len() <= room {
        0
    } else {
        column.saturating_sub(room / 3).min(line.len() - room)
    };
    let shown: String = line.iter().skip(from).take(room).collect();
    let most = shown.chars().count().saturating_sub(column - from).max(1);
    let mark = "^".repeat(place.width.clamp(1, most));
    let (bold, plain) = if color { (RED, PLAIN) } else { ("", "") };
    let _infallible = writeln!(page, "{gutter}{}", shown.trim_end());
    let indent = " ".repeat(column - from);
    let _infallible = writeln!(page, "       | {indent}{bold}{mark}{plain}");
}

/// A text that cannot move the cursor of a terminal or hide what is beside it.
fn clean(text: &str) -> String {
    text.chars()
        .map(|c| {
            let hidden = matches!(c, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}'
                | '\u{2060}'..='\u{2069}' | '\u{feff}');
            if c == '\t' {
                ' '
            } else if c.is_control() || hidden {
                '\u{fffd}'
            } else {
                c
            }
        })
        .collect()
}

const WIDTH: usize = 80;
const BOLD: &str = "\x1b[1m";
const RED: &str = "\x1b[1;31m";
const YELLOW: &str = "\x1b[1;33m";
const PLAIN: &str = "\x1b[0m";

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::{Config, Files};

    fn report(text: &str) -> String {
        let refused = Config::parse(text, Path::new("ravelin.toml"), Files::Unchecked).unwrap_err();
        problems(&refused, false)
    }

    /// The value of an unknown key is not shown: it might be a misspelt secret.
    #[test]
    fn a_problem_shows_its_line_and_what_was_meant() {
        let text = include_str!("../../../examples/ravelin.toml")
            .replace("persistence = { cookie", "persistence = { coookie");
        let report = report(&text);

        let line = text
            .lines()
            .position(|l| l.contains("coookie"))
            .unwrap()
            .checked_add(1)
            .unwrap();
        assert_eq!(
            report,
            format!(
                "ravelin.toml:{line}:17: pool.xenmobile.persistence.coookie: is an unknown key; did\n    \
                     you mean cookie?\n   \
                 {line} | persistence = {{ coookie …\n       \
                        |                 ^^^^^^^\n\n\
                 1 problem\n"
            )
        );
    }

    #[test]
    fn no_line_is_wider_than_a_terminal() {
        let long = format!(
            "host = \"gw\"\n{}x = \"{}\"\n",
            " ".repeat(60),
            "a ".repeat(200)
        );
        for line in report(&long).lines() {
            assert!(line.chars().count() <= WIDTH, "{line}");
        }
    }

    #[test]
    fn a_text_cannot_move_the_cursor() {
        let report = report("\"\\u001b[2J\" = 1\n# \u{1b}[31m\n\u{1b}[31m = 2\n");

        assert!(!report.contains('\u{1b}'), "{report:?}");
    }
}
