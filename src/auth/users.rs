//! The embedded user file: lines `name:group,group:hash`, with Argon2id hashes.

use std::{
    collections::BTreeMap,
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{Arc, LazyLock, Mutex, PoisonError},
};

use arc_swap::ArcSwap;
use argon2::{
    Algorithm, Argon2, Params, Version,
    password_hash::{
        CustomizedPasswordHasher, PasswordHasher, PasswordVerifier, phc::PasswordHash,
    },
};
use tracing::{error, info};

use crate::{config::Secret, crypto};

/// The Argon2id hash of a password in PHC form (19 MiB, two passes, one lane), for a user file.
pub fn hash_password(password: &Secret) -> String {
    // These parameters and a salt of 16 bytes are always accepted; only a machine without
    // 19 MiB of memory gets an empty text, which no user file takes.
    argon2()
        .hash_password_with_salt(password.expose(), &crypto::random::<16>())
        .map(|hash| hash.to_string())
        .unwrap_or_default()
}

/// A user file, read again when it changes.
#[derive(Debug)]
pub(super) struct Users {
    path: PathBuf,
    stamp: Mutex<Stamp>,
    users: ArcSwap<List>,
}

type List = BTreeMap<Arc<str>, User>;

#[derive(Clone, Debug)]
struct User {
    groups: Arc<[Arc<str>]>,
    hash: PasswordHash,
}

/// What a file was like when it was read: another one has replaced it when this differs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    inode: u64,
    length: u64,
    changed: (i64, i64),
}

/// What a user file says about a name and a password.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Answer {
    Known(Arc<[Arc<str>]>),
    Unknown,
    Wrong,
}

impl Users {
    /// Reads a file; every problem in it is reported.
    pub(super) fn load(path: &Path) -> Result<Self, Error> {
        let (stamp, users) = read(path)?;
        Ok(Self {
            path: path.to_owned(),
            stamp: Mutex::new(stamp),
            users: ArcSwap::from_pointee(users),
        })
    }

    /// Checks a password. It blocks for as long as one hash takes, whether the name is known or
    /// not, and reads the file again first when it has changed.
    pub(super) fn check(&self, name: &str, password: &Secret) -> Answer {
        self.refresh();
        let users = self.users.load();
        let user = users.get(name);
        let hash = user.map_or(&*DUMMY, |user| &user.hash);
        let good = argon2().verify_password(password.expose(), hash).is_ok();
        match user {
            Some(user) if good => Answer::Known(Arc::clone(&user.groups)),
            Some(_) => Answer::Wrong,
            None => Answer::Unknown,
        }
    }

    /// A changed file with a problem leaves the users as they were.
    fn refresh(&self) {
        let mut stamp = self.stamp.lock().unwrap_or_else(PoisonError::into_inner);
        let Ok(now) = Stamp::of(&self.path) else {
            return;
        };
        if *stamp == now {
            return;
        }
        match read(&self.path) {
            Ok((new, users)) => {
                info!(path = %self.path.display(), users = users.len(), "user file read again");
                self.users.store(Arc::new(users));
                *stamp = new;
            }
            Err(cause) => {
                error!(path = %self.path.display(), %cause, "user file not usable, old one kept");
                *stamp = now;
            }
        }
    }
}

impl Stamp {
    fn of(path: &Path) -> io::Result<Self> {
        fs::metadata(path).map(|data| Self {
            inode: data.ino(),
            length: data.len(),
            changed: (data.mtime(), data.mtime_nsec()),
        })
    }
}

/// Why a user file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Lines that are not users.
    #[error("{}", list(.0))]
    Lines(Vec<(usize, Problem)>),
    /// The file cannot be read.
    #[error("reading it")]
    Read(#[source] io::Error),
    /// The file is larger than any list of users.
    #[error("it has more than {MAX_FILE} bytes")]
    TooLarge,
}

/// What is wrong with one line of a user file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// A user twice.
    #[error("{0} has a line already")]
    Duplicate(String),
    /// Not three fields.
    #[error("not `name:group,group:hash`")]
    Fields,
    /// A group with characters that a group cannot have, or an empty one.
    #[error("{0:?} is no name for a group")]
    Group(String),
    /// The hash cannot be read, or is weak.
    #[error("the hash is not `$argon2id$v=19$…`, as `ravelin hash-password` prints it")]
    Hash,
    /// A name with characters that a name cannot have, or an empty one.
    #[error("{0:?} is no name for a user")]
    Name(String),
    /// Parameters that one check could not pay for.
    #[error("the hash asks for more than 1 GiB or 20 passes")]
    Parameters,
}

fn list(problems: &[(usize, Problem)]) -> String {
    let lines: Vec<_> = problems
        .iter()
        .map(|(line, problem)| format!("line {line}: {problem}"))
        .collect();
    lines.join("; ")
}

fn read(path: &Path) -> Result<(Stamp, List), Error> {
    // The stamp comes first: a change while reading is then seen the next time.
    let stamp = Stamp::of(path).map_err(Error::Read)?;
    if stamp.length > MAX_FILE {
        return Err(Error::TooLarge);
    }
    let text = fs::read_to_string(path).map_err(Error::Read)?;
    Ok((stamp, parse(&text).map_err(Error::Lines)?))
}

fn parse(text: &str) -> Result<List, Vec<(usize, Problem)>> {
    let mut users = BTreeMap::new();
    let mut problems = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        match parse_line(line) {
            Ok((name, _user)) if users.contains_key(&name) => {
                problems.push((number, Problem::Duplicate(name.to_string())));
            }
            Ok((name, user)) => {
                users.insert(name, user);
            }
            Err(problem) => problems.push((number, problem)),
        }
    }
    if problems.is_empty() {
        Ok(users)
    } else {
        Err(problems)
    }
}

fn parse_line(line: &str) -> Result<(Arc<str>, User), Problem> {
    let mut fields = line.splitn(3, ':');
    let (Some(name), Some(groups), Some(hash)) = (fields.next(), fields.next(), fields.next())
    else {
        return Err(Problem::Fields);
    };
    if !is_name(name) {
        return Err(Problem::Name(name.to_owned()));
    }
    let groups: Result<Arc<[Arc<str>]>, Problem> = groups
        .split(',')
        .map(str::trim)
        .filter(|group| !(group.is_empty() && groups.trim().is_empty()))
        .map(|group| {
            is_name(group)
                .then(|| group.into())
                .ok_or_else(|| Problem::Group(group.to_owned()))
        })
        .collect();
    let hash = parse_hash(hash.trim())?;
    Ok((
        name.into(),
        User {
            groups: groups?,
            hash,
        },
    ))
}

fn parse_hash(text: &str) -> Result<PasswordHash, Problem> {
    let hash = PasswordHash::new(text).map_err(|_not_phc| Problem::Hash)?;
    let complete = hash.algorithm.as_str() == Algorithm::Argon2id.as_str()
        && hash.version == Some(Version::V0x13.into())
        && hash.salt.is_some()
        && hash.hash.as_ref().is_some_and(|output| output.len() >= 16);
    let params = Params::try_from(&hash).map_err(|_bad| Problem::Hash)?;
    if !complete {
        return Err(Problem::Hash);
    }
    if params.m_cost() > MAX_MEMORY || params.t_cost() > MAX_PASSES {
        return Err(Problem::Parameters);
    }
    Ok(hash)
}

fn is_name(name: &str) -> bool {
    (1..=256).contains(&name.len())
        && name.trim() == name
        && !name.chars().any(|c| c.is_control() || c == ':' || c == ',')
}

fn argon2() -> Argon2<'static> {
    Argon2::new(Algorithm::Argon2id, Version::V0x13, Params::DEFAULT)
}

/// What an unknown user's password is compared with, so that it takes as long as a known one's.
#[expect(
    clippy::expect_used,
    reason = "the default parameters and a salt of 16 bytes are valid"
)]
static DUMMY: LazyLock<PasswordHash> = LazyLock::new(|| {
    argon2()
        .hash_password_customized(
            &crypto::random::<32>(),
            &crypto::random::<16>(),
            None,
            None,
            Params::DEFAULT,
        )
        .expect("valid parameters")
});

const MAX_FILE: u64 = 16 << 20;
const MAX_MEMORY: u32 = 1 << 20;
const MAX_PASSES: u32 = 20;

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(text: &str) -> Secret {
        Secret::new(text.as_bytes().to_vec())
    }

    fn file(text: &str) -> PathBuf {
        let name = format!("ravelin-users-{:x}", u64::from_be_bytes(crypto::random()));
        let path = std::env::temp_dir().join(name);
        fs::write(&path, text).unwrap();
        path
    }

    #[test]
    fn a_user_with_the_right_password_has_its_groups() {
        let hash = hash_password(&secret("right"));
        let path = file(&format!(
            "# staff\n\nalice:sales,it staff:{hash}\nbob::{hash}\n"
        ));
        let users = Users::load(&path).unwrap();

        let groups: Arc<[Arc<str>]> = Arc::from([Arc::from("sales"), Arc::from("it staff")]);
        assert_eq!(
            users.check("alice", &secret("right")),
            Answer::Known(groups)
        );
        let none: Arc<[Arc<str>]> = Arc::from([]);
        assert_eq!(users.check("bob", &secret("right")), Answer::Known(none));
        assert_eq!(users.check("alice", &secret("wrong")), Answer::Wrong);
        assert_eq!(users.check("Alice", &secret("right")), Answer::Unknown);
        fs::remove_file(path).unwrap();
    }

    #[test]
    fn a_hash_has_the_parameters_that_were_decided() {
        assert!(
            hash_password(&secret("x")).starts_with("$argon2id$v=19$m=19456,t=2,p=1$"),
            "{}",
            hash_password(&secret("x"))
        );
    }

    #[test]
    fn a_changed_file_is_read_again_and_a_broken_one_is_not_used() {
        let old = hash_password(&secret("old"));
        let new = hash_password(&secret("new"));
        let path = file(&format!("alice:sales:{old}\n"));
        let users = Users::load(&path).unwrap();

        fs::write(&path, format!("alice:sales:{new}\n\n")).unwrap();
        assert!(matches!(
            users.check("alice", &secret("new")),
            Answer::Known(_)
        ));
        fs::write(&path, "alice").unwrap();
        assert!(matches!(
            users.check("alice", &secret("new")),
            Answer::Known(_)
        ));
        fs::remove_file(path).unwrap();
    }

    #[test]
    fn all_problems_are_named_with_their_lines() {
        let hash = hash_password(&secret("x"));
        let text = format!(
            "a:g:{hash}\na:g:{hash}\nno fields\n:g:{hash}\nb:g,,h:{hash}\nc:g:plain\nd:g:$argon2i$v=19$m=19456,t=2,p=1$AAAAAAAAAAAAAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA\ne:g:$argon2id$v=19$m=4194304,t=2,p=1$AAAAAAAAAAAAAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA\n"
        );
        let problems = parse(&text).unwrap_err();

        assert_eq!(
            problems,
            [
                (2, Problem::Duplicate("a".into())),
                (3, Problem::Fields),
                (4, Problem::Name(String::new())),
                (5, Problem::Group(String::new())),
                (6, Problem::Hash),
                (7, Problem::Hash),
                (8, Problem::Parameters),
            ]
        );
    }

    proptest::proptest! {
        #[test]
        fn no_text_panics(text in "(?s).{0,200}") {
            let _result = parse(&text);
        }
    }
}
