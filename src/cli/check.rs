//! `ravelin check`: every problem of a configuration at once, or what it means.

mod report;
mod summary;

use std::{
    error::Error,
    io::{self, IsTerminal, Write},
    path::PathBuf,
    process::ExitCode,
};

use clap::Args;

use crate::{
    config::{Config, Files, Problems, nearest, reference, schema},
    policy,
    tls::certificates,
};

/// Options of `ravelin check`.
#[derive(Debug, Args)]
pub(super) struct Options {
    /// The configuration; conf.d/*.toml beside it is read too
    #[arg(
        short,
        long,
        value_name = "FILE",
        default_value = "/etc/ravelin/ravelin.toml"
    )]
    config: PathBuf,
    /// Look at the text alone, not at the files and secrets that it names
    #[arg(long)]
    no_files: bool,
    /// Print the JSON Schema of the configuration, for editors
    #[arg(long, conflicts_with = "reference")]
    schema: bool,
    /// Print every key with its type, default and meaning, as Markdown
    #[arg(long)]
    reference: bool,
}

/// Checks, and prints problems to standard error or what the configuration means to standard
/// output.
///
/// # Errors
///
/// When the output cannot be written.
pub(super) fn run(options: &Options) -> Result<ExitCode, Box<dyn Error>> {
    if options.schema {
        let text = serde_json::to_string_pretty(schema())?;
        return show(&(text + "\n"));
    }
    if options.reference {
        return show(&reference());
    }
    let files = if options.no_files {
        Files::Unchecked
    } else {
        Files::Checked
    };
    let config = match Config::load_with(&options.config, files) {
        Ok(config) => config,
        Err(problems) => return Ok(refuse(&problems)),
    };
    let mut warnings = config.warnings.clone();
    if files == Files::Checked {
        let problems = later_stages(&config);
        if !problems.is_empty() {
            return Ok(refuse(&problems));
        }
        warnings.extend(strangers(&config));
    }
    let warnings = report::warnings(&warnings, in_color(io::stderr().is_terminal()));
    io::stderr().write_all(warnings.as_bytes())?;
    let color = in_color(io::stdout().is_terminal());
    show(&summary::of(&config, files, color))
}

/// Prints problems to standard error; the exit code of a configuration that cannot be used.
pub(super) fn refuse(problems: &Problems) -> ExitCode {
    let text = report::problems(problems, in_color(io::stderr().is_terminal()));
    // Nobody is left to tell when standard error is closed; the exit code says it.
    drop(io::stderr().write_all(text.as_bytes()));
    ExitCode::from(2)
}

/// What the stages that read files of their own find in them: everything that would keep the
/// gateway from starting.
fn later_stages(config: &Config) -> Problems {
    let mut problems = Problems::new();
    for (file, message) in certificates::check(config) {
        problems.push_file(&file, None, message);
    }
    for error in policy::check(&config.policy.files) {
        problems.push_file(&error.file, error.place, error.message);
    }
    problems.sort();
    problems
}

/// Apps that policies name and the configuration does not have. No problem, since gateways may
/// share their policies; but a `forbid` with a slip in it forbids nothing.
fn strangers(config: &Config) -> Problems {
    let known = || config.apps.iter().map(|app| &*app.name);
    let mut warnings = Problems::new();
    for mention in policy::apps(&config.policy.files) {
        if !known().any(|name| name == mention.app) {
            let message = format!(
                "names the app \"{}\", which the configuration does not have",
                mention.app.escape_debug()
            );
            let meant = nearest(&mention.app, known());
            warnings.push_guess(&mention.file, mention.place, message, meant);
        }
    }
    warnings.sort();
    warnings
}

fn show(text: &str) -> Result<ExitCode, Box<dyn Error>> {
    match io::stdout().write_all(text.as_bytes()) {
        // Somebody looks at the beginning only (`| head`).
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(ExitCode::SUCCESS),
        Err(error) => Err(error.into()),
        Ok(()) => Ok(ExitCode::SUCCESS),
    }
}

fn in_color(terminal: bool) -> bool {
    terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    /// The example with one policy file.
    fn config(policy: &str) -> (tempfile::TempDir, Config) {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("policies")).unwrap();
        std::fs::write(folder.path().join("policies/test.cedar"), policy).unwrap();
        let text = include_str!("../../examples/ravelin.toml");
        let path = folder.path().join("ravelin.toml");
        let mut config = Config::parse(text, &path, Files::Unchecked).unwrap();
        config.policy.files = vec![folder.path().join("policies/test.cedar")];
        (folder, config)
    }

    #[test]
    fn a_policy_that_names_no_app_of_ours_is_warned_of_with_what_was_meant() {
        let (_folder, config) = config(
            "permit (principal, action == Action::\"open\", resource == App::\"intranet\");\n\
             forbid (principal, action == Action::\"open\",\n  resource == App::\"storefrnt\");\n",
        );

        let warnings = strangers(&config);

        let warning = warnings.iter().next().unwrap();
        assert_eq!(warnings.len(), 1, "{warnings}");
        assert_eq!(warning.meant.as_deref(), Some("storefront"));
        let place = warning.place.unwrap();
        assert_eq!((place.line, place.column), (3, 15));
    }

    #[test]
    fn what_would_keep_the_gateway_from_starting_is_named_with_its_place() {
        let (_folder, config) = config("permit (principal, action, resource)\n  whem { true };\n");

        let problems = later_stages(&config);

        let policy = problems.iter().find(|p| p.file.ends_with("test.cedar"));
        assert_eq!(policy.unwrap().place.unwrap().line, 2, "{problems}");
        // The example's certificates are nowhere near.
        let text = problems.to_string();
        assert!(text.contains("certificate gw"), "{text}");
        assert!(problems.iter().all(|p| p.file != Path::new("")), "{text}");
    }
}
