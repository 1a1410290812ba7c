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
            node.reason
                .as_deref()
                .map_or(String::new(), |r| printable(r).into_owned()),
        ]
    });
    table(["POOL", "NODE", "STATE", "BUSY", "REASON"], rows)
}

fn session_table(sessions: &[control::Session]) -> String {
    let rows = sessions.iter().map(|session| {
        [
            session.id.clone(),
            printable(&session.user).into_owned(),
            session.class.clone(),
            age(session.age),
            age(session.idle),
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

fn age(seconds: u64) -> String {
    let minutes = Duration::from_secs(seconds).as_secs() / 60;
    match (minutes / 1440, minutes / 60 % 24, minutes % 60) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, minutes) => format!("{minutes} min"),
        (0, hours, minutes) => format!("{hours} h {minutes} min"),
        (days, hours, _) => format!("{days} d {hours} h"),
    }
}
