//! What stands outside the file: paths, secrets, policy files.

use std::{
    env, fs,
    io::{self, Read},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use rustls::pki_types::{CertificateDer, pem::PemObject};
use zeroize::Zeroizing;

use super::Resolver;
use crate::config::{
    Authorities, DEMO_CA, Files, Policy, Secret, file,
    value::{Ca, SecretName, SecretPlace},
};

impl Resolver {
    /// A path, seen from the file that names it.
    pub(super) fn path(&self, key: &str, path: &Path) -> PathBuf {
        self.origin.directory(key).join(path)
    }

    /// A file that must be there and readable.
    pub(super) fn file(&mut self, key: &str, path: &Path) -> PathBuf {
        let path = self.path(key, path);
        if self.files == Files::Checked
            && let Err(error) = open(&path)
        {
            self.problem(key, cannot_read(&path, &error));
        }
        path
    }

    /// A file with certificates that must be there, and not be the demo's.
    pub(super) fn certificates(&mut self, key: &str, path: &Path) -> PathBuf {
        let path = self.path(key, path);
        if self.files == Files::Unchecked {
            return path;
        }
        match read(&path) {
            Err(error) => self.problem(key, cannot_read(&path, &error)),
            Ok(pem) => {
                let certificates: Result<Vec<_>, _> =
                    CertificateDer::pem_slice_iter(&pem).collect();
                match certificates {
                    Ok(certificates) if !certificates.is_empty() => {
                        let of_demo = certificates.iter().any(|der| contains(der, DEMO_CA));
                        if !self.demo && (of_demo || in_demo(&path)) {
                            self.problem(key, "is the demo's: anybody could have made its key");
                        }
                    }
                    Ok(_) | Err(_) => {
                        let message = format!("{} holds no certificate (PEM)", path.display());
                        self.problem(key, message);
                    }
                }
            }
        }
        path
    }

    /// A file that is refused when it belongs to a demo, and this is none.
    pub(super) fn not_of_demo(&mut self, key: &str, path: &Path) {
        if self.files == Files::Checked && !self.demo && in_demo(path) {
            self.problem(
                key,
                "belongs to a demo: its passwords are on paper somewhere",
            );
        }
    }

    /// The directory of a file that is going to be written.
    pub(super) fn directory_of(&mut self, key: &str, path: &Path) {
        let directory = path.parent().filter(|d| !d.as_os_str().is_empty());
        if self.files == Files::Checked
            && let Some(directory) = directory
            && !directory.is_dir()
        {
            let message = format!("there is no directory {}", directory.display());
            self.problem(key, message);
        }
    }

    /// A file that only its owner and group may read.
    pub(super) fn private_file(&mut self, key: &str, path: &Path) -> PathBuf {
        let path = self.file(key, path);
        self.private(key, &path);
        path
    }

    /// Trusted authorities.
    pub(super) fn authorities(&mut self, key: &str, ca: Option<&Ca>) -> Authorities {
        match ca {
            Some(Ca(Some(path))) => Authorities::File(self.certificates(key, path)),
            Some(Ca(None)) | None => Authorities::System,
        }
    }

    /// A secret by its name. Nothing of its value is ever part of a message.
    pub(super) fn secret(&mut self, key: &str, name: &SecretName) -> Option<Secret> {
        let bytes = match &name.0 {
            _ if self.files == Files::Unchecked => return Some(Secret::new(Vec::new())),
            SecretPlace::Environment(variable) => {
                let Some(value) = env::var_os(variable) else {
                    let message = format!("there is no variable {variable} in the environment");
                    self.problem(key, message);
                    return None;
                };
                Zeroizing::new(value.into_encoded_bytes())
            }
            SecretPlace::File(path) => {
                let path = self.path(key, path);
                match read(&path) {
                    Ok(bytes) => {
                        self.private(key, &path);
                        bytes
                    }
                    Err(error) => {
                        self.problem(key, cannot_read(&path, &error));
                        return None;
                    }
                }
            }
        };
        let text = bytes.strip_suffix(b"\n").unwrap_or(&bytes);
        let text = text.strip_suffix(b"\r").unwrap_or(text);
        if text.is_empty() {
            self.problem(key, "names an empty secret");
            return None;
        }
        Some(Secret::new(text.to_vec()))
    }

    /// The policy files: patterns become the files that match.
    pub(super) fn policy(&mut self, written: file::Policy) -> Policy {
        let mut found = Vec::new();
        for (index, pattern) in written.files.into_iter().flatten().enumerate() {
            let key = format!("policy.files[{index}]");
            let path = self.path(&key, Path::new(&pattern.0));
            if self.files == Files::Unchecked || !pattern.0.contains('*') {
                found.push(self.file(&key, Path::new(&pattern.0)));
                continue;
            }
            match matching(&path) {
                Ok(matches) if matches.is_empty() => {
                    let message = format!("no file matches {}", path.display());
                    self.problem(&key, message);
                }
                Ok(matches) => found.extend(matches),
                Err(error) => self.problem(&key, cannot_read(&path, &error)),
            }
        }
        let mut files: Vec<PathBuf> = Vec::new();
        for path in found {
            if !files.contains(&path) {
                files.push(path);
            }
        }
        Policy { files }
    }

    /// Refuses a secret that every user of the machine can read or write. The folder of systemd's
    /// credentials is closed as a whole.
    fn private(&mut self, key: &str, path: &Path) {
        if self.files == Files::Unchecked || path.starts_with("/run/credentials") {
            return;
        }
        let mode = fs::metadata(path).map(|metadata| metadata.permissions().mode());
        if mode.is_ok_and(|mode| mode & 0o006 != 0) {
            let message = format!("{} is open to every user: chmod o= it", path.display());
            self.problem(key, message);
        }
    }
}

fn open(path: &Path) -> io::Result<fs::File> {
    // Opening a pipe would wait for its writer.
    if !fs::metadata(path)?.is_file() {
        return Err(io::Error::other("not a file"));
    }
    fs::File::open(path)
}

fn read(path: &Path) -> io::Result<Zeroizing<Vec<u8>>> {
    let mut bytes = Zeroizing::new(Vec::with_capacity(4096));
    open(path)?.take(MAX_BYTES + 1).read_to_end(&mut bytes)?;
    if u64::try_from(bytes.len()).is_ok_and(|length| length > MAX_BYTES) {
        return Err(io::Error::other("larger than 4 MiB"));
    }
    Ok(bytes)
}

fn cannot_read(path: &Path, error: &io::Error) -> String {
    let why = if error.kind() == io::ErrorKind::NotFound {
        "does not exist".to_owned()
    } else if error.kind() == io::ErrorKind::PermissionDenied {
        "cannot be read: permission denied".to_owned()
    } else {
        format!("cannot be read: {error}")
    };
    format!("{} {why}", path.display())
}

/// The files that a pattern with one `*` in its last segment matches, sorted.
fn matching(pattern: &Path) -> io::Result<Vec<PathBuf>> {
    let last = pattern.file_name().unwrap_or_default().to_string_lossy();
    let (start, end) = last.split_once('*').unwrap_or((&last, ""));
    let directory = pattern.parent().filter(|d| !d.as_os_str().is_empty());
    let mut matches = Vec::new();
    let entries = match fs::read_dir(directory.unwrap_or_else(|| Path::new("."))) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(matches),
        Err(error) => return Err(error),
    };
    for entry in entries {
        let name = entry?.file_name();
        let text = name.to_string_lossy();
        let fits = text.len() >= start.len() + end.len()
            && text.starts_with(start)
            && text.ends_with(end)
            && !text.starts_with('.');
        let path = pattern.with_file_name(&name);
        if fits && path.is_file() {
            matches.push(path);
        }
    }
    matches.sort();
    Ok(matches)
}

/// The file lies in a demo's folder, or in one of its folders.
fn in_demo(path: &Path) -> bool {
    let path = fs::canonicalize(path).unwrap_or_else(|_gone| path.to_owned());
    path.ancestors()
        .skip(1)
        .take(2)
        .any(|folder| folder.join("demo.json").exists())
}

fn contains(der: &[u8], name: &str) -> bool {
    der.windows(name.len()).any(|part| part == name.as_bytes())
}

/// Far more than any secret or list of authorities.
const MAX_BYTES: u64 = 4 << 20;
