//! Cedar files to a [`Set`]: read, parsed, held against the schema, every problem with its place.

use std::{
    collections::HashMap,
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
    str::FromStr,
    sync::Arc,
};

use cedar_policy::{PolicyId, PolicySet, Schema, ValidationMode, ValidationWarning, Validator};
use miette::Diagnostic;
use tracing::warn;

use super::{Error, Mention, facts, set::Set};

/// Reads all files; nothing is used when anything is wrong.
pub(super) fn load(files: &[PathBuf]) -> Result<Set, Vec<Error>> {
    read_all(files).map(|(set, _mentions)| set)
}

/// Every app that a policy names, with its place; or what is wrong with the files.
pub(super) fn apps(files: &[PathBuf]) -> Result<Vec<Mention>, Vec<Error>> {
    read_all(files).map(|(_set, mentions)| mentions)
}

fn read_all(files: &[PathBuf]) -> Result<(Set, Vec<Mention>), Vec<Error>> {
    let mut loader = Loader {
        validator: Validator::new(schema()),
        set: Set::default(),
        homes: HashMap::new(),
        mentions: Vec::new(),
        problems: Vec::new(),
    };
    for file in files {
        match read(file) {
            Ok(text) => loader.add(file, &text),
            Err(error) => loader.problems.push(Error {
                file: file.clone(),
                place: None,
                message: format!("cannot be read: {error}"),
            }),
        }
    }
    if loader.problems.is_empty() {
        Ok((loader.set, loader.mentions))
    } else {
        Err(loader.problems)
    }
}

/// What a policy can see.
#[expect(
    clippy::expect_used,
    reason = "it is compiled in, and a test parses it"
)]
pub(super) fn schema() -> Schema {
    Schema::from_str(SCHEMA).expect("the schema fits Cedar")
}

struct Loader {
    validator: Validator,
    set: Set,
    /// Where each id was first seen.
    homes: HashMap<Arc<str>, String>,
    mentions: Vec<Mention>,
    problems: Vec<Error>,
}

impl Loader {
    fn add(&mut self, file: &Path, text: &str) {
        let parsed = match PolicySet::from_str(text) {
            Ok(parsed) => parsed,
            Err(errors) => {
                for error in errors.iter() {
                    self.diagnose(file, text, error);
                }
                return;
            }
        };
        for template in parsed.templates() {
            let offset = text.find(&template.to_string());
            let message = "a policy with a slot (`?principal`, `?resource`) cannot be used here";
            self.problem(file, text, offset, message.to_owned());
        }
        let mut named = PolicySet::new();
        let mut from = 0;
        for (number, policy) in in_order(&parsed).into_iter().enumerate() {
            let source = policy.to_string();
            let offset = text
                .get(from..)
                .and_then(|rest| rest.find(&source))
                .map(|found| from.saturating_add(found));
            from = offset.map_or(from, |offset| offset.saturating_add(source.len()));

            let Some(id) = self.name(file, text, offset, number, policy) else {
                continue;
            };
            self.mention(file, text, offset, policy);
            let policy = policy.new_id(PolicyId::new(&id));
            let (facts, problems) = facts::read(&policy);
            for problem in problems {
                self.problem(file, text, offset, format!("policy {id}: {problem}"));
            }
            let added = named
                .add(policy.clone())
                .map_err(Box::new)
                .and_then(|()| self.set.add(id, &policy, facts));
            if let Err(error) = added {
                self.problems.push(problem(file, text, offset, &*error));
            }
        }
        self.validate(file, text, &named);
    }

    /// Notes the apps that a policy names.
    fn mention(
        &mut self,
        file: &Path,
        text: &str,
        offset: Option<usize>,
        policy: &cedar_policy::Policy,
    ) {
        let named = policy.entity_literals().into_iter();
        for entity in named.filter(|entity| entity.type_name().basename() == "App") {
            let from = offset.unwrap_or_default();
            let found = text
                .get(from..)
                .and_then(|rest| rest.find(&entity.to_string()));
            let offset = found.map_or(offset, |found| Some(from.saturating_add(found)));
            self.mentions.push(Mention {
                file: file.to_owned(),
                place: offset.map(|offset| place(text, offset)),
                app: entity.id().unescaped().to_owned(),
            });
        }
    }

    /// The policy's id, when nothing is wrong with it and no other policy has it.
    fn name(
        &mut self,
        file: &Path,
        text: &str,
        offset: Option<usize>,
        number: usize,
        policy: &cedar_policy::Policy,
    ) -> Option<Arc<str>> {
        let id: Arc<str> = match policy.annotation("id") {
            Some(id) => id.into(),
            None => {
                let stem = file.file_stem().unwrap_or_default().to_string_lossy();
                format!("{stem}-{}", number.saturating_add(1)).into()
            }
        };
        let plain = |c: char| c.is_alphanumeric() || "-_.:/ ".contains(c);
        if id.is_empty() || id.chars().count() > MAX_ID || !id.chars().all(plain) {
            let message = format!(
                "an id has 1 to {MAX_ID} letters, digits, spaces and `-_.:/`, not \"{}\"",
                id.escape_debug()
            );
            self.problem(file, text, offset, message);
            return None;
        }
        if let Some(home) = self.homes.get(&id) {
            let message = format!("the id {id} is taken by the policy at {home}");
            self.problem(file, text, offset, message);
            return None;
        }
        let place = offset.map(|offset| place(text, offset));
        let home = match place {
            Some((line, column)) => format!("{}:{line}:{column}", file.display()),
            None => file.display().to_string(),
        };
        self.homes.insert(Arc::clone(&id), home);
        Some(id)
    }

    fn validate(&mut self, file: &Path, text: &str, policies: &PolicySet) {
        let result = self.validator.validate(policies, ValidationMode::Strict);
        for error in result.validation_errors() {
            self.diagnose(file, text, error);
        }
        for warning in result.validation_warnings() {
            // Somebody may have switched a policy off. Every other warning is about text that
            // reads differently from what it does, or a policy that cannot apply.
            if matches!(warning, ValidationWarning::ImpossiblePolicy(_)) {
                warn!(file = %file.display(), %warning, "a policy has no effect");
            } else {
                self.diagnose(file, text, warning);
            }
        }
    }

    fn diagnose(&mut self, file: &Path, text: &str, diagnostic: &dyn Diagnostic) {
        let offset = diagnostic
            .labels()
            .and_then(|mut labels| labels.next())
            .map(|label| label.offset());
        self.problems.push(problem(file, text, offset, diagnostic));
    }

    fn problem(&mut self, file: &Path, text: &str, offset: Option<usize>, message: String) {
        self.problems.push(Error {
            file: file.to_owned(),
            place: offset.map(|offset| place(text, offset)),
            message,
        });
    }
}

fn problem(file: &Path, text: &str, offset: Option<usize>, diagnostic: &dyn Diagnostic) -> Error {
    let help = diagnostic.help().map(|help| format!(" ({help})"));
    Error {
        file: file.to_owned(),
        place: offset.map(|offset| place(text, offset)),
        message: format!("{diagnostic}{}", help.unwrap_or_default()),
    }
}

/// The policies as the file has them: Cedar numbers them, and keeps them by that.
fn in_order(set: &PolicySet) -> Vec<&cedar_policy::Policy> {
    let mut policies: Vec<_> = set.policies().collect();
    policies.sort_by_key(|policy| {
        let id: &str = policy.id().as_ref();
        id.strip_prefix("policy")
            .and_then(|number| number.parse::<usize>().ok())
    });
    policies
}

/// Line and column of a byte, counted from 1.
fn place(text: &str, offset: usize) -> (usize, usize) {
    let before = text.get(..offset).unwrap_or(text);
    let line = before.matches('\n').count().saturating_add(1);
    let last = before.rsplit('\n').next().unwrap_or_default();
    (line, last.chars().count().saturating_add(1))
}

fn read(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    let limit = MAX_FILE.saturating_add(1);
    File::open(path)?.take(limit).read_to_string(&mut text)?;
    if text.len() as u64 > MAX_FILE {
        return Err(io::Error::new(
            io::ErrorKind::FileTooLarge,
            "more than 16 MiB",
        ));
    }
    Ok(text)
}

const SCHEMA: &str = include_str!("../../policies/ravelin.cedarschema");

const MAX_FILE: u64 = 16 << 20;

const MAX_ID: usize = 64;
