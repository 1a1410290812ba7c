//! The demo's folder: fresh, for its owner alone, and gone afterwards when nobody chose it.

use std::{
    fs::{self, DirBuilder, OpenOptions, Permissions},
    io::{self, Write},
    os::unix::{
        fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt},
        net::UnixStream,
    },
    path::{Path, PathBuf},
};

use data_encoding::BASE32_NOPAD;

use crate::crypto;

/// A folder with mode 0700 that holds what the demo writes, and nothing else of value.
#[derive(Debug)]
pub(crate) struct Folder {
    path: PathBuf,
    temporary: bool,
}

impl Folder {
    /// Makes `chosen`, or empties it when an earlier demo left it; without a choice, makes a
    /// folder with a random name that is removed when this value is dropped.
    ///
    /// # Errors
    ///
    /// When the folder holds what is not a demo's, belongs to somebody else, or is in use.
    pub(crate) fn prepare(chosen: Option<&Path>) -> Result<Self, Error> {
        let Some(path) = chosen else {
            return Self::temporary();
        };
        let failed = |source| Error::Make {
            path: path.to_owned(),
            source,
        };
        make(path, true).map_err(failed)?;
        let path = fs::canonicalize(path).map_err(failed)?;
        let folder = Self {
            path,
            temporary: false,
        };
        folder.clear()?;
        Ok(folder)
    }

    fn temporary() -> Result<Self, Error> {
        let runtime = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
        let parent = runtime
            .filter(|path| path.is_absolute() && path.is_dir())
            .unwrap_or_else(std::env::temp_dir);
        let name = BASE32_NOPAD.encode(&crypto::random::<5>());
        let path = parent.join(format!("ravelin-demo-{}", name.to_ascii_lowercase()));
        match make(&path, false) {
            Ok(()) => Ok(Self {
                path,
                temporary: true,
            }),
            Err(source) => Err(Error::Make { path, source }),
        }
    }

    /// The folder's absolute path.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether it goes away with this value.
    pub(crate) fn is_temporary(&self) -> bool {
        self.temporary
    }

    /// Writes a file that only its owner can read; folders on the way are made.
    ///
    /// The file appears whole or not at all, as others may wait for it.
    ///
    /// # Errors
    ///
    /// What the file system says.
    pub(crate) fn write(&self, name: &str, contents: &[u8]) -> Result<PathBuf, Error> {
        let path = self.path.join(name);
        let written = (|| {
            if let Some(parent) = path.parent() {
                make(parent, true)?;
            }
            let mut half = path.clone().into_os_string();
            half.push(".part");
            let mut file = OpenOptions::new()
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(&half)?;
            file.write_all(contents)?;
            fs::rename(&half, &path)
        })();
        match written {
            Ok(()) => Ok(path),
            Err(source) => Err(Error::Write { path, source }),
        }
    }

    /// Removes what an earlier demo left, and refuses what is not a demo's.
    fn clear(&self) -> Result<(), Error> {
        let failed = |source| Error::Make {
            path: self.path.clone(),
            source,
        };
        // Root may work in another's folder, but must not fill it with keys by accident.
        let ours = fs::metadata("/proc/self").map_err(failed)?.uid();
        if fs::metadata(&self.path).map_err(failed)?.uid() != ours {
            return Err(Error::Foreign(self.path.clone()));
        }
        if UnixStream::connect(self.path.join(CONTROL)).is_ok() {
            return Err(Error::Busy(self.path.clone()));
        }
        let mut entries = Vec::new();
        for entry in fs::read_dir(&self.path).map_err(failed)? {
            entries.push(entry.map_err(failed)?.path());
        }
        let made_by_a_demo = fs::read_to_string(self.path.join(CONFIG))
            .is_ok_and(|text| text.starts_with(super::configuration::HEADLINE));
        let known = |path: &PathBuf| path.file_name().is_some_and(is_ours);
        let ours = made_by_a_demo && entries.iter().all(known);
        if !(ours || entries.is_empty()) {
            return Err(Error::NotEmpty(self.path.clone()));
        }
        // What marks the folder as a demo's goes last, so that a broken-off removal can go on.
        entries.sort_by_key(|path| path.ends_with(CONFIG));
        for path in entries {
            let is_folder = fs::symlink_metadata(&path).map_err(failed)?.is_dir();
            if is_folder {
                fs::remove_dir_all(&path).map_err(failed)?;
            } else {
                fs::remove_file(&path).map_err(failed)?;
            }
        }
        fs::set_permissions(&self.path, Permissions::from_mode(0o700)).map_err(failed)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if self.temporary {
            // Nobody is left to tell: at worst a folder that only its owner can read stays.
            let _left = fs::remove_dir_all(&self.path);
        }
    }
}

fn make(path: &Path, parents: bool) -> io::Result<()> {
    let mut builder = DirBuilder::new();
    builder.mode(0o700).recursive(parents).create(path)
}

fn is_ours(name: &std::ffi::OsStr) -> bool {
    name.to_str()
        .is_some_and(|name| ENTRIES.contains(&name.trim_end_matches(".part")))
}

/// Why the demo has no folder to work in.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// Another demo works there.
    #[error("{path}: another demo is running there", path = .0.display())]
    Busy(PathBuf),
    /// It belongs to another user.
    #[error("{path}: belongs to another user", path = .0.display())]
    Foreign(PathBuf),
    /// It cannot be made or emptied.
    #[error("{path}: cannot be made ready for the demo", path = path.display())]
    Make {
        /// Which folder.
        path: PathBuf,
        /// What the file system said.
        source: io::Error,
    },
    /// It holds files that no demo made.
    #[error("{path}: holds files that are not a demo's; choose a new folder", path = .0.display())]
    NotEmpty(PathBuf),
    /// A file cannot be written.
    #[error("{path}: cannot be written", path = path.display())]
    Write {
        /// Which file.
        path: PathBuf,
        /// What the file system said.
        source: io::Error,
    },
}

/// The configuration's name in the folder.
pub(crate) const CONFIG: &str = "ravelin.toml";

/// The control socket's name in the folder.
pub(crate) const CONTROL: &str = "control.sock";

/// Everything that a demo, or a line that it prints, leaves in its folder.
const ENTRIES: [&str; 12] = [
    "access.log",
    "certs",
    "chromium",
    "conf.d",
    CONFIG,
    CONTROL,
    "cookies",
    "demo.json",
    "login.png",
    "node.cookies",
    "policies",
    "users",
];

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn a_temporary_folder_is_private_and_goes_away() {
        let folder = Folder::prepare(None).unwrap();
        let path = folder.path().to_owned();
        let file = folder.write("certs/gw.key", b"key").unwrap();
        assert_eq!((mode(&path), mode(&file)), (0o700, 0o600));

        drop(folder);

        assert!(!path.exists());
    }

    #[test]
    fn a_demos_own_folder_is_emptied_and_used_again() {
        let outer = Folder::prepare(None).unwrap();
        let path = outer.path().join("demo");
        let first = Folder::prepare(Some(&path)).unwrap();
        first
            .write(CONFIG, super::super::configuration::HEADLINE.as_bytes())
            .unwrap();
        first.write("certs/old.pem", b"old").unwrap();

        let second = Folder::prepare(Some(&path)).unwrap();

        assert_eq!(fs::read_dir(second.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_folder_with_other_files_is_refused_and_kept() {
        let outer = Folder::prepare(None).unwrap();
        let path = outer.path().join("demo");
        let first = Folder::prepare(Some(&path)).unwrap();
        first
            .write(CONFIG, super::super::configuration::HEADLINE.as_bytes())
            .unwrap();
        first.write("thesis.tex", b"years of work").unwrap();

        let refused = Folder::prepare(Some(&path)).unwrap_err();

        assert!(matches!(refused, Error::NotEmpty(_)));
        assert!(path.join("thesis.tex").exists());
    }

    #[test]
    fn a_folder_with_somebody_elses_configuration_is_refused() {
        let outer = Folder::prepare(None).unwrap();
        outer.write(CONFIG, b"host = \"gw.example.com\"\n").unwrap();

        let refused = Folder::prepare(Some(outer.path())).unwrap_err();

        assert!(matches!(refused, Error::NotEmpty(_)));
    }

    #[test]
    fn a_folder_in_which_a_gateway_listens_is_refused() {
        let outer = Folder::prepare(None).unwrap();
        let _listening =
            std::os::unix::net::UnixListener::bind(outer.path().join(CONTROL)).unwrap();

        let refused = Folder::prepare(Some(outer.path())).unwrap_err();

        assert!(matches!(refused, Error::Busy(_)));
    }
}
