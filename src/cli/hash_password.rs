//! `ravelin hash-password`: prints a password's hash for a user file.

use std::{
    error,
    io::{self, BufRead, IsTerminal, Read, Write},
    process::{Command, ExitCode, Stdio},
};

use zeroize::Zeroizing;

use crate::{auth, config::Secret};

/// Reads a password, from the terminal without showing it, else the first line of standard
/// input, and prints its Argon2id hash.
///
/// # Errors
///
/// When there is no password, it could never log in, or the hash cannot be printed.
pub(super) fn run() -> Result<ExitCode, Box<dyn error::Error>> {
    let input = io::stdin();
    let password = if input.is_terminal() {
        ask(&mut input.lock())?
    } else {
        read(&mut input.lock())?
    };
    writeln!(io::stdout(), "{}", auth::hash_password(&password))?;
    Ok(ExitCode::SUCCESS)
}

/// Asks twice, since nobody sees what they type.
fn ask(input: &mut impl BufRead) -> Result<Secret, Error> {
    let _echo = NoEcho::begin();
    let mut read_after = |text: &str| {
        let mut screen = io::stderr();
        write!(screen, "{text}: ").map_err(Error::Read)?;
        let password = read(input);
        writeln!(screen).map_err(Error::Read)?;
        password
    };
    let first = read_after("Password")?;
    let second = read_after("The same again")?;
    if first.expose() == second.expose() {
        Ok(first)
    } else {
        Err(Error::Differ)
    }
}

/// One line. No more than a password can have is read.
fn read(input: &mut impl BufRead) -> Result<Secret, Error> {
    let mut line = Zeroizing::new(Vec::with_capacity(MAX_LINE));
    let limit = u64::try_from(MAX_LINE).unwrap_or(u64::MAX);
    input
        .by_ref()
        .take(limit)
        .read_until(b'\n', &mut line)
        .map_err(Error::Read)?;
    let text = line.strip_suffix(b"\n").unwrap_or(&line);
    let text = text.strip_suffix(b"\r").unwrap_or(text);
    if text.is_empty() {
        return Err(Error::Empty);
    }
    if text.len() > MAX_PASSWORD {
        return Err(Error::TooLong);
    }
    if text.contains(&0) || std::str::from_utf8(text).is_err() {
        return Err(Error::NotText);
    }
    Ok(Secret::new(text.to_vec()))
}

/// The terminal shows nothing that is typed, for as long as this lives.
struct NoEcho;

impl NoEcho {
    /// By the system's own program: changing a terminal needs a call that is unsafe here.
    fn begin() -> Self {
        stty("-echo");
        Self
    }
}

impl Drop for NoEcho {
    fn drop(&mut self) {
        stty("echo");
    }
}

fn stty(argument: &str) {
    // Without it the password is seen while it is typed; that is no reason to fail.
    let _absent = Command::new("stty")
        .arg(argument)
        .stdin(Stdio::inherit())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
}

#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("the two passwords are not the same")]
    Differ,
    #[error("the password is empty")]
    Empty,
    #[error("the password is not text in UTF-8")]
    NotText,
    #[error("the password cannot be read")]
    Read(#[source] io::Error),
    #[error("the password has more than {MAX_PASSWORD} bytes")]
    TooLong,
}

const MAX_PASSWORD: usize = 1024;
const MAX_LINE: usize = MAX_PASSWORD + 3;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_a_password() {
        for text in [
            b"secret".as_slice(),
            b"secret\n",
            b"secret\r\n",
            b"secret\nmore",
        ] {
            assert_eq!(read(&mut &*text).unwrap().expose(), b"secret");
        }
    }

    #[test]
    fn what_could_never_log_in_is_refused() {
        let long = vec![b'x'; MAX_PASSWORD + 1];
        let longer = vec![b'x'; 1 << 20];
        for text in [b"".as_slice(), b"\n", b"a\0b", b"\xff", &long, &longer] {
            read(&mut &*text).unwrap_err();
        }
    }
}
