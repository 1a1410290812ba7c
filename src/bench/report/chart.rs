//! The chart of ratios: one bar for each row that has peers, and a line where the best peer is.

use std::fmt::Write;

use super::{Report, figure};
use crate::bench::result::{Line, Met};

/// An SVG that is legible on light and on dark.
pub(super) fn picture(report: &Report) -> String {
    let lines: Vec<&Line> = report.results.iter().filter(|line| shown(line)).collect();
    let height = TOP + STEP * lines.len() + BOTTOM;
    let foot = TOP + STEP * lines.len();
    let one = LEFT + UNIT;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" \
         width=\"{WIDTH}\" height=\"{height}\" role=\"img\" aria-label=\"Cost of the gateway by \
         that of its best peer\">\n<style>{STYLE}</style>\n\
         <text x=\"16\" y=\"28\" class=\"title\">What ravelin costs, by the best peer in the same \
         run</text>\n<text x=\"16\" y=\"48\" class=\"dim\">CPU time or memory for each unit of \
         work; shorter is cheaper. Ticks: our two goals; green meets the first.</text>\n\
         <line x1=\"{one}\" y1=\"{}\" x2=\"{one}\" y2=\"{foot}\" class=\"one\"/>\n\
         <text x=\"{one}\" y=\"{}\" class=\"dim\" text-anchor=\"middle\">best peer</text>\n",
        TOP - 4,
        TOP - 10,
    );
    for (at, line) in lines.into_iter().enumerate() {
        svg += &bar(line, TOP + STEP * at);
    }
    let machine = &report.machine;
    let _fits = write!(
        svg,
        "<text x=\"16\" y=\"{}\" class=\"dim\">{}, kernel {}, {}; medians of {} round{}</text>\n</svg>\n",
        foot + 24,
        escape(&machine.cpu),
        escape(&machine.kernel),
        escape(machine.date.split('T').next().unwrap_or_default()),
        report.rounds,
        if report.rounds == 1 { "" } else { "s" },
    );
    svg
}

/// A check of generators compares nobody.
fn shown(line: &Line) -> bool {
    line.ratio.is_some() && line.best_peer.is_some() && !line.work.starts_with("check")
}

fn bar(line: &Line, top: usize) -> String {
    let ratio = line.ratio.unwrap_or_default();
    let met = line.goal.as_ref().and_then(|goal| goal.met);
    let class = match met {
        Some(Met::No) => "bar missed",
        None if ratio > 1.0 => "bar missed",
        Some(Met::Aim | Met::AtLeast) | None => "bar good",
    };
    let width = wide(ratio);
    let mut bar = format!(
        "<text x=\"{}\" y=\"{}\" text-anchor=\"end\">{}</text>\n\
         <rect x=\"{LEFT}\" y=\"{}\" width=\"{width:.1}\" height=\"{BAR}\" rx=\"2\" class=\"{class}\"/>\n",
        LEFT - 10,
        top + 15,
        escape(line.title),
        top + 3,
    );
    let goal = line.goal.as_ref().filter(|goal| !goal.absolute);
    for limit in goal.into_iter().flat_map(|goal| [goal.at_least, goal.aim]) {
        let x = wide(limit) + LEFT_F;
        let _fits = writeln!(
            bar,
            "<line x1=\"{x:.1}\" y1=\"{}\" x2=\"{x:.1}\" y2=\"{}\" class=\"goal\"/>",
            top + 1,
            top + 5 + BAR,
        );
    }
    let peer = line.best_peer.as_deref().unwrap_or_default();
    let _fits = writeln!(
        bar,
        "<text x=\"{WIDTH_IN}\" y=\"{}\" text-anchor=\"end\"><tspan class=\"figure\">{ratio:.2}</tspan> \
         <tspan class=\"dim\">of {} {}</tspan></text>",
        top + 15,
        escape(peer),
        line.peers
            .get(peer)
            .copied()
            .map(figure)
            .unwrap_or_default(),
    );
    bar
}

/// As wide as a ratio is; what is far beyond the peer ends at the edge.
fn wide(ratio: f64) -> f64 {
    ratio.clamp(0.0, MOST) * UNIT_F
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

const WIDTH: usize = 860;
const WIDTH_IN: usize = 844;
const LEFT: usize = 240;
const LEFT_F: f64 = 240.0;
/// Width of the best peer's bar.
const UNIT: usize = 260;
const UNIT_F: f64 = 260.0;
const MOST: f64 = 1.5;
const TOP: usize = 84;
const STEP: usize = 26;
const BAR: usize = 16;
const BOTTOM: usize = 40;
const STYLE: &str = "text{font:13px system-ui,sans-serif;fill:#1f2328}.title{font-weight:600;\
     font-size:16px}.dim{fill:#59636e}.figure{font-weight:600}.good{fill:#1a7f5a}\
     .missed{fill:#c4682a}.one{stroke:#59636e;stroke-dasharray:4 3}.goal{stroke:#1f2328;\
     stroke-width:1.5}@media(prefers-color-scheme:dark){text{fill:#e6edf3}.dim{fill:#9aa4af}\
     .good{fill:#3fb68b}.missed{fill:#e08e4f}.one{stroke:#9aa4af}.goal{stroke:#e6edf3}}";
