//! The results of a run: as JSON, as Markdown, as a chart, and as a table for a terminal.

use std::{collections::BTreeMap, fs, io, path::Path};

use serde::Serialize;

use super::{
    machine::Machine,
    result::{Judged, Line, Met},
};

mod chart;
mod markdown;
mod terminal;

/// Everything that a run has found.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Report {
    pub(super) machine: Machine,
    /// Of the gateway, of peers and of generators.
    pub(super) versions: BTreeMap<String, String>,
    /// Peers that are not installed.
    pub(super) missing: Vec<String>,
    /// Rounds of each row.
    pub(super) rounds: usize,
    /// Seconds of load in each.
    pub(super) seconds: f64,
    pub(super) results: Vec<Line>,
}

impl Report {
    /// Writes `latest.json`, `latest.md` and `latest.svg` into a folder.
    ///
    /// # Errors
    ///
    /// What the file system says.
    pub(crate) fn write(&self, folder: &Path) -> io::Result<()> {
        fs::create_dir_all(folder)?;
        fs::write(folder.join("latest.json"), self.json()?)?;
        fs::write(folder.join("latest.md"), markdown::page(self))?;
        fs::write(folder.join("latest.svg"), chart::picture(self))
    }

    /// A table of at most 80 columns.
    pub(crate) fn table(&self) -> String {
        terminal::table(self)
    }

    fn json(&self) -> io::Result<String> {
        Ok(serde_json::to_string_pretty(self)? + "\n")
    }
}

/// A figure with three digits that mean something.
fn figure(value: f64) -> String {
    match value.abs() {
        large if large >= 100.0 => grouped(value),
        large if large >= 10.0 => format!("{value:.1}"),
        large if large >= 0.1 || large == 0.0 => format!("{value:.2}"),
        _small => format!("{value:.3}"),
    }
}

/// A whole number with commas between thousands.
fn grouped(value: f64) -> String {
    let digits = format!("{:.0}", value.abs());
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

fn met(goal: Option<&Judged>) -> &'static str {
    match goal.and_then(|goal| goal.met) {
        Some(Met::Aim) => "aim",
        Some(Met::AtLeast) => "yes",
        Some(Met::No) => "no",
        None => "",
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::bench::result::{
        Point, Role,
        tests::{entry, row},
    };

    pub(super) fn report() -> Report {
        let compared = vec![
            entry("ravelin", Role::Gateway, &[20.0, 18.0, 19.0]),
            entry("haproxy", Role::Peer, &[22.0]),
            entry("nginx <1.31>", Role::Peer, &[40.0]),
            entry("plain relay", Role::Floor, &[10.0]),
        ];
        let mut broken = entry("envoy", Role::Peer, &[]);
        (broken.errors, broken.problem) = (3, Some("answered 502 | twice".to_owned()));
        let failed = vec![entry("ravelin", Role::Gateway, &[1.0]), broken];
        let alone = vec![entry("ravelin", Role::Gateway, &[12_345.6])];
        let points = [(1, 20.0), (9000, 22.0)];
        let points = points.map(|(number, value)| Point { number, value });
        Report {
            machine: Machine {
                date: "2026-01-02T03:04:05Z".to_owned(),
                cpu: "EPYC".to_owned(),
                cores: 2,
                measured_on: "0".to_owned(),
                driven_from: "1".to_owned(),
                memory_mib: 2048.0,
                kernel: "6.1".to_owned(),
                load: 0.5,
            },
            versions: [("ravelin".to_owned(), "0.1.0".to_owned())].into(),
            missing: vec!["squid".to_owned()],
            rounds: 3,
            seconds: 2.0,
            results: vec![
                Line::new(row("h1"), compared, Vec::new()),
                Line::new(row("bulk-chacha"), failed, Vec::new()),
                Line::new(row("start"), alone, Vec::new()),
                Line::new(row("growth-routes"), Vec::new(), points.to_vec()),
            ],
        }
    }

    #[test]
    fn the_json_has_the_shape_that_programs_expect() {
        let json: Value = serde_json::from_str(&report().json().unwrap()).unwrap();

        let line = &json["results"][0];
        assert_eq!(line["work"], "h1");
        assert_eq!(line["unit"], "µs/request");
        assert_eq!(line["ravelin"], 19.0);
        assert_eq!(line["peers"]["haproxy"], 22.0);
        assert_eq!(line["best_peer"], "haproxy");
        assert!((line["ratio"].as_f64().unwrap() - 19.0 / 22.0).abs() < 1e-9);
        assert_eq!(line["errors"], 0);
        assert_eq!(line["goal"]["met"], "at-least");
        assert_eq!(json["results"][1]["errors"], 3);
        assert_eq!(json["machine"]["cpu"], "EPYC");
        assert_eq!(json["versions"]["ravelin"], "0.1.0");
    }

    #[test]
    fn the_table_fits_a_terminal_and_says_what_went_wrong() {
        let table = report().table();

        for line in table.lines() {
            assert!(line.chars().count() <= 80, "{line}");
        }
        assert!(table.contains("h1"), "{table}");
        assert!(table.contains("0.86"), "{table}");
        assert!(table.contains("envoy: answered 502"), "{table}");
        assert!(table.contains("squid"), "{table}");
    }

    #[test]
    fn every_row_of_the_markdown_table_has_all_its_cells() {
        let page = markdown::page(&report());

        let rows = page.lines().filter(|line| line.starts_with("| `"));
        let cells: Vec<usize> = rows.map(|row| row.matches('|').count()).collect();
        assert!(cells.len() >= 4, "{page}");
        assert!(page.contains("3: envoy: answered 502 \\| twice"), "{page}");
        assert!(page.contains("| 1 | 9,000 |"), "{page}");
        assert!(page.contains("EPYC"), "{page}");
    }

    #[test]
    fn the_chart_is_well_formed_and_has_a_bar_for_each_ratio() {
        let chart = chart::picture(&report());

        let mut open = Vec::new();
        for tag in chart.split('<').skip(1) {
            let tag = tag.split('>').next().unwrap();
            if let Some(name) = tag.strip_prefix('/') {
                assert_eq!(open.pop(), Some(name), "{chart}");
            } else if !tag.ends_with('/') {
                open.push(tag.split(' ').next().unwrap());
            }
        }
        assert!(open.is_empty(), "{open:?}");
        assert_eq!(chart.matches("class=\"bar").count(), 1, "{chart}");
        assert!(chart.contains("HTTP/1.1 request"), "{chart}");
        assert!(!chart.contains("<1.31>"), "names are escaped");
    }

    #[test]
    fn figures_have_three_digits_that_mean_something() {
        let texts = [0.0123, 0.5, 12.34, 123.4, 1_234_567.0].map(figure);

        assert_eq!(texts, ["0.012", "0.50", "12.3", "123", "1,234,567"]);
    }
}
