//! The commands that ask a running gateway over its control socket.

use std::{error::Error, process::ExitCode, time::Duration};

use clap::Args;

use super::Control;
use crate::{
    control::{self, Answer, Command, Kill},
    metrics::access_log::printable,
};

/// Options of `ravelin kill`.
#[derive(Debug, Args)]
pub(super) struct KillOptions {
    #[command(flatten)]
    which: Which,
    #[command(flatten)]
    control: Control,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct Which {
    /// One session, by the id that `ravelin sessions` shows
    #[arg(value_name = "SESSION")]
    session: Option<String>,
    /// All sessions of a user
    #[arg(long, value_name = "NAME")]
    user: Option<String>,
    /// All sessions
    #[arg(long)]
    all: bool,
}

pub(super) fn kill(options: &KillOptions) -> Result<ExitCode, Box<dyn Error>> {
    let what = match &options.which {
        Which {
            session: Some(id), ..
        } => Kill::Session(id.clone()),
        Which {
            user: Some(user), ..
        } => Kill::User(user.clone()),
        Which { .. } => Kill::All,
    };
    show(&options.control, &Command::Kill { what })
}

pub(super) fn pools(control: &Control) -> Result<ExitCode, Box<dyn Error>> {
    show(control, &Command::Pools)
}

pub(super) fn reload(control: &Control) -> Result<ExitCode, Box<dyn Error>> {
    show(control, &Command::Reload)
}

pub(super) fn sessions(control: &Control) -> Result<ExitCode, Box<dyn Error>> {
    show(control, &Command::Sessions)
}

pub(super) fn status(control: &Control) -> Result<ExitCode, Box<dyn Error>> {
    show(control, &Command::Status)
}

#[expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "answers are for the terminal"
)]
fn show(control: &Control, command: &Command) -> Result<ExitCode, Box<dyn Error>> {
    let answer = control::ask(&control.control, command)?;
    if let Answer::Error(reason) = &answer {
        eprintln!("ravelin: {reason}");
        return Ok(ExitCode::FAILURE);
    }
    if control.json {
        println!("{}", serde_json::to_string_pretty(&answer)?);
    } else {
        print!("{}", text(&answer));
    }
    Ok(ExitCode::SUCCESS)
}

fn text(answer: &Answer) -> String {
    match answer {
        Answer::Error(reason) => format!("{reason}\n"),
        Answer::Killed(1) => "ended 1 session\n".into(),
        Answer::Killed(count) => format!("ended {count} sessions\n"),
        Answer::Pools(nodes) => pool_table(nodes),
        Answer::Reloaded => "the new configuration is in force\n".into(),
        Answer::Sessions(sessions) => session_table(sessions),
        Answer::Status(status) => status_text(status),
    }
}

fn pool_table(nodes: &[control::Node]) -> String {
    let rows = nodes.iter().map(|node| {
        [
            node.pool.clone(),
            node.node.clone(),
            node.state.clone(),
            node.requests.to_string(),
        ]
    });
    let table = table(["POOL", "NODE", "STATE", "BUSY"], rows);
    let mut lines = table.lines();
    let mut text = format!("{}\n", lines.next().unwrap_or_default());
    for (line, node) in lines.zip(nodes) {
        text.push_str(&format!("{line}\n"));
        if let Some(reason) = &node.reason {
            text.push_str(&paragraph(&printable(reason)));
        }
    }
    text
}

/// Words in lines that a terminal shows whole, set in a little.
fn paragraph(text: &str) -> String {
    let mut lines = String::new();
    let mut line = String::from("   ");
    for word in text.split_whitespace() {
        let wide = line.chars().count() + word.chars().count() >= WIDTH;
        if wide && !line.trim().is_empty() {
            lines.push_str(&format!("{line}\n"));
            line = String::from("   ");
        }
        line.push_str(&format!(" {word}"));
    }
    lines + &format!("{line}\n")
}

fn session_table(sessions: &[control::Session]) -> String {
    let rows = sessions.iter().map(|session| {
        [
            session.id.clone(),
            cut(&printable(&session.user)),
            session.class.clone(),
            coarse(session.age),
            coarse(session.idle),
            session.tunnels.to_string(),
        ]
    });
    table(["SESSION", "USER", "BY", "AGE", "IDLE", "TUNNELS"], rows)
}

fn status_text(status: &control::Status) -> String {
    let control::Status {
        version,
        uptime,
        pid,
        admin: _,
        listeners,
        sessions,
        connections,
        tunnels,
        generation,
        draining,
    } = status;
    let state = if *draining { "draining" } else { "serving" };
    format!(
        "ravelin {version}, process {pid}, {state} for {up}\n\
         listens on     {listeners}\n\
         sessions       {sessions}\n\
         connections    {connections}\n\
         tunnels        {tunnels}\n\
         configuration  loaded {generation} time(s)\n",
        up = age(*uptime),
        listeners = listeners.join(", "),
    )
}

/// Columns as wide as they need to be, two spaces between them.
fn table<const N: usize>(heads: [&str; N], rows: impl Iterator<Item = [String; N]>) -> String {
    let rows: Vec<_> = rows.collect();
    let mut widths = heads.map(|head| head.chars().count());
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let line = |cells: [&str; N]| {
        let mut line = String::new();
        for (cell, width) in cells.iter().zip(widths) {
            line.push_str(&format!("{cell:width$}  "));
        }
        format!("{}\n", line.trim_end())
    };
    let mut text = line(heads);
    for row in &rows {
        text.push_str(&line(row.each_ref().map(String::as_str)));
    }
    text
}

/// A name that leaves room for the other columns; `--json` has it whole.
fn cut(name: &str) -> String {
    match name.char_indices().nth(MAX_NAME.saturating_sub(1)) {
        Some((place, last)) if place + last.len_utf8() < name.len() => {
            format!("{}…", name.get(..place).unwrap_or_default())
        }
        Some(_) | None => name.to_owned(),
    }
}

/// An age in one unit.
fn coarse(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} min", seconds / 60),
        3600..86_400 => format!("{} h", seconds / 3600),
        86_400.. => format!("{} d", seconds / 86_400),
    }
}

fn age(seconds: u64) -> String {
    let minutes = Duration::from_secs(seconds).as_secs() / 60;
    match (minutes / 1440, minutes / 60 % 24, minutes % 60) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, minutes) => format!("{minutes} min"),
        (0, hours, minutes) => format!("{hours} h {minutes} min"),
        (days, hours, _) => format!("{days} d {hours} h"),
    }
}

/// Of a terminal.
const WIDTH: usize = 80;
/// What the other columns of a list of sessions leave.
const MAX_NAME: usize = 26;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_widest_session_fits_into_a_terminal() {
        let session = control::Session {
            id: "S-ABCDEFGHIJKLMNOP".into(),
            user: "ä".repeat(100),
            directory: "corp".into(),
            class: "browser".into(),
            age: 3599,
            idle: 3599,
            tunnels: 1_000_000,
        };
        let text = session_table(&[session]);
        assert!(
            text.lines().all(|line| line.chars().count() <= WIDTH),
            "{text}"
        );
        assert!(text.contains("ä…  browser"), "{text}");
        assert_eq!(cut(&"b".repeat(26)), "b".repeat(26));
    }

    #[test]
    fn a_reason_stands_below_its_node_however_long_it_is() {
        let node = |reason: Option<&str>| control::Node {
            pool: "xenmobile".into(),
            node: "xm1.corp.example.com:8443".into(),
            state: "down".into(),
            requests: 0,
            reason: reason.map(Into::into),
        };
        let long = "connecting: ".repeat(20);
        let text = pool_table(&[node(Some(&long)), node(None)]);
        assert!(
            text.lines().all(|line| line.chars().count() <= WIDTH),
            "{text}"
        );
        assert!(
            text.lines().nth(2).unwrap().starts_with("    connecting"),
            "{text}"
        );
        assert!(
            text.lines().last().unwrap().starts_with("xenmobile"),
            "{text}"
        );
    }
}
