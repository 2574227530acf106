//! The files folder: what is in it, and no path that leads out of it.
//!
//! A path is relative to the folder; one that begins with `/` is too, and one that begins with the folder itself means
//! what is in it. `..` is refused. A symbolic link is followed where it leads into the folder, and refused where it leads
//! out. `*`, `?` and `[a-z]` in a part of a path stand for whatever matches there.

use std::fs::{File, Metadata, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Component, Path, PathBuf};
use std::time::SystemTime;

use super::fetch::Fetches;

/// Why a file cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum FilesError {
    /// Nothing there. minimega's words.
    #[error("{action} {path}: file not found")]
    NotFound {
        /// What was tried.
        action: &'static str,
        /// As given.
        path: String,
    },
    /// It leads out of the folder.
    #[error("{action} {path}: leads out of the files folder")]
    Outside {
        /// What was tried.
        action: &'static str,
        /// As given.
        path: String,
    },
    /// A wildcard that is none.
    #[error("{action} {path}: invalid wildcard")]
    Wildcard {
        /// What was tried.
        action: &'static str,
        /// As given.
        path: String,
        /// Why.
        #[source]
        source: glob::PatternError,
    },
    /// The folder itself.
    #[error("delete {path}: that is the whole files folder; `file delete *` empties it")]
    Root {
        /// As given.
        path: String,
    },
    /// A folder, a socket ….
    #[error("{action} {path}: not a regular file")]
    NoFile {
        /// What was tried.
        action: &'static str,
        /// As given.
        path: String,
    },
    /// The system.
    #[error("{action} {path}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// As given.
        path: String,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
}

/// A file or folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileRow {
    /// Is it a folder?
    pub folder: bool,
    /// Its path in the files folder.
    pub name: String,
    /// Its size in bytes.
    pub size: u64,
    /// When it was last written.
    pub modified: SystemTime,
}

/// The files folder of an engine.
pub struct Files {
    root: PathBuf,
    /// What is being fetched into it.
    pub(super) fetches: Fetches,
}

/// One request: its words for errors.
#[derive(Clone, Copy)]
struct Asked<'a> {
    action: &'static str,
    path: &'a str,
}

impl Asked<'_> {
    fn path(self) -> String {
        self.path.to_owned()
    }

    fn not_found(self) -> FilesError {
        FilesError::NotFound { action: self.action, path: self.path() }
    }

    fn outside(self) -> FilesError {
        FilesError::Outside { action: self.action, path: self.path() }
    }

    fn io(self, source: std::io::Error) -> FilesError {
        match source.kind() {
            std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory => self.not_found(),
            _ => FilesError::Io { action: self.action, path: self.path(), source },
        }
    }
}

impl Files {
    pub(super) fn new(root: PathBuf) -> Self {
        Self { root, fetches: Fetches::default() }
    }

    /// The folder.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Where a path in the folder is, whether or not something is there.
    pub fn place(&self, path: &str) -> Result<PathBuf, FilesError> {
        let asked = Asked { action: "file:", path };
        let place = self.root.join(self.relative(asked)?);
        let root = self.real_root(asked)?;
        // What is there of it must not lead out, so that what is made there is made inside.
        for part in place.ancestors().take_while(|part| part.starts_with(&self.root)) {
            match part.canonicalize() {
                Ok(real) if real.starts_with(&root) => break,
                Ok(_) => return Err(asked.outside()),
                // A link to nothing may come to lead anywhere.
                Err(_) if std::fs::symlink_metadata(part).is_ok() => return Err(asked.outside()),
                Err(_) => {}
            }
        }
        Ok(place)
    }

    fn real_root(&self, asked: Asked<'_>) -> Result<PathBuf, FilesError> {
        self.root.canonicalize().map_err(|error| asked.io(error))
    }

    /// The parts of a path, below the folder.
    fn relative(&self, asked: Asked<'_>) -> Result<PathBuf, FilesError> {
        let given = Path::new(asked.path);
        let given = given.strip_prefix(&self.root).unwrap_or(given);
        let mut relative = PathBuf::new();
        for part in given.components() {
            match part {
                Component::Normal(part) => relative.push(part),
                Component::ParentDir => return Err(asked.outside()),
                _ => {}
            }
        }
        Ok(relative)
    }

    /// The real path of something in the folder, all links followed.
    fn real(&self, asked: Asked<'_>, relative: &Path) -> Result<PathBuf, FilesError> {
        let real = self.root.join(relative).canonicalize().map_err(|error| asked.io(error))?;
        if real.starts_with(self.real_root(asked)?) { Ok(real) } else { Err(asked.outside()) }
    }

    /// What a path with wildcards stands for, sorted; itself if it has none.
    fn matches(&self, asked: Asked<'_>) -> Result<Vec<PathBuf>, FilesError> {
        let relative = self.relative(asked)?;
        if !asked.path.contains(['*', '?', '[']) || std::fs::symlink_metadata(self.root.join(&relative)).is_ok() {
            return Ok(vec![relative]);
        }
        let mut found = vec![PathBuf::new()];
        for part in relative.components() {
            let part = part.as_os_str().to_string_lossy();
            let pattern = glob::Pattern::new(&part).map_err(|source| FilesError::Wildcard {
                action: asked.action,
                path: asked.path(),
                source,
            })?;
            let mut next = Vec::new();
            for folder in found {
                // What is no folder, or leads out, has nothing that matches.
                let Ok(real) = self.real(asked, &folder) else { continue };
                for entry in std::fs::read_dir(real).into_iter().flatten().flatten() {
                    if entry.file_name().to_str().is_some_and(|name| pattern.matches(name)) {
                        next.push(folder.join(entry.file_name()));
                    }
                }
            }
            found = next;
        }
        if found.is_empty() {
            return Err(asked.not_found());
        }
        found.sort();
        Ok(found)
    }

    /// A row; of a link that leads out of the folder or nowhere, the link itself.
    fn row(&self, relative: &Path, link: &Metadata) -> FileRow {
        let asked = Asked { action: "list", path: "" };
        let target = link.is_symlink().then(|| self.real(asked, relative).ok()?.metadata().ok()).flatten();
        let meta = target.as_ref().unwrap_or(link);
        FileRow {
            folder: meta.is_dir(),
            name: relative.to_string_lossy().into_owned(),
            size: meta.len(),
            modified: meta.modified().unwrap_or(SystemTime::UNIX_EPOCH),
        }
    }

    /// What is in a folder, sorted by path; of a file, the file. With `recursive`, what is in its folders too, those
    /// behind links excepted.
    pub fn list(&self, path: &str, recursive: bool) -> Result<Vec<FileRow>, FilesError> {
        let asked = Asked { action: "list", path };
        let mut rows = Vec::new();
        let mut folders = Vec::new();
        for found in self.matches(asked)? {
            let real = self.real(asked, &found)?;
            let meta = real.metadata().map_err(|error| asked.io(error))?;
            if meta.is_dir() { folders.push(found) } else { rows.push(self.row(&found, &meta)) }
        }
        while let Some(folder) = folders.pop() {
            let real = self.real(asked, &folder)?;
            for entry in std::fs::read_dir(real).map_err(|error| asked.io(error))? {
                let entry = entry.map_err(|error| asked.io(error))?;
                // Deleted since it was listed.
                let Ok(meta) = std::fs::symlink_metadata(entry.path()) else { continue };
                let relative = folder.join(entry.file_name());
                rows.push(self.row(&relative, &meta));
                if recursive && meta.is_dir() {
                    folders.push(relative);
                }
            }
        }
        rows.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(rows)
    }

    /// Make sure that a file or folder is here. This engine has no peers to get it from.
    pub fn get(&self, path: &str) -> Result<(), FilesError> {
        let asked = Asked { action: "get", path };
        for found in self.matches(asked)? {
            self.real(asked, &found)?;
        }
        Ok(())
    }

    /// Delete files, and folders with all that is in them. Of a link, the link. With a wildcard, goes on past what cannot
    /// be deleted and answers with the first error.
    pub fn delete(&self, path: &str) -> Result<(), FilesError> {
        let asked = Asked { action: "delete", path };
        let mut result = Ok(());
        for found in self.matches(asked)? {
            let Some(name) = found.file_name() else { return Err(FilesError::Root { path: asked.path() }) };
            let folder = self.real(asked, found.parent().unwrap_or(Path::new("")))?;
            let place = folder.join(name);
            let deleted = std::fs::symlink_metadata(&place).and_then(|meta| {
                if meta.is_dir() { std::fs::remove_dir_all(&place) } else { std::fs::remove_file(&place) }
            });
            result = result.and(deleted.map_err(|error| asked.io(error)));
        }
        result
    }

    /// Open a regular file.
    pub fn open(&self, path: &str) -> Result<File, FilesError> {
        let asked = Asked { action: "stream", path };
        let real = self.real(asked, &self.relative(asked)?)?;
        let file = OpenOptions::new()
            .read(true)
            // A named pipe without a writer would be waited for.
            .custom_flags(nix::libc::O_NOFOLLOW | nix::libc::O_NONBLOCK)
            .open(real)
            .map_err(|error| asked.io(error))?;
        match file.metadata() {
            Ok(meta) if meta.is_file() => Ok(file),
            _ => Err(FilesError::NoFile { action: asked.action, path: asked.path() }),
        }
    }

    /// An archive in the folder, and its path there.
    pub(super) fn archive(&self, path: &str) -> Result<(PathBuf, PathBuf), FilesError> {
        let asked = Asked { action: "tar:", path };
        let relative = self.relative(asked)?;
        let real = self.real(asked, &relative)?;
        if !real.is_file() {
            return Err(FilesError::NoFile { action: asked.action, path: asked.path() });
        }
        Ok((real, relative))
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn files() -> (tempfile::TempDir, Files) {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("files");
        std::fs::create_dir_all(root.join("d/e")).unwrap();
        std::fs::write(folder.path().join("secret"), "no").unwrap();
        for (name, text) in [("a.img", "a"), ("b.img", "bb"), ("c.txt", "c"), ("d/x.img", "x"), ("d/e/y", "y")] {
            std::fs::write(root.join(name), text).unwrap();
        }
        symlink("../secret", root.join("out")).unwrap();
        symlink("..", root.join("up")).unwrap();
        symlink("d", root.join("in")).unwrap();
        symlink("nowhere", root.join("dangling")).unwrap();
        let files = Files::new(root);
        (folder, files)
    }

    fn names(rows: &[FileRow]) -> Vec<&str> {
        rows.iter().map(|row| row.name.as_str()).collect()
    }

    #[test]
    fn folders_are_listed_and_links_out_are_not_followed() {
        let (_folder, files) = files();
        let root = ["a.img", "b.img", "c.txt", "d", "dangling", "in", "out", "up"];
        assert_eq!(names(&files.list("", false).unwrap()), root);
        assert_eq!(names(&files.list("/", false).unwrap()), root);
        assert_eq!(names(&files.list("d", false).unwrap()), ["d/e", "d/x.img"]);
        assert_eq!(names(&files.list("in/", false).unwrap()), ["in/e", "in/x.img"]);
        assert_eq!(names(&files.list("*.img", false).unwrap()), ["a.img", "b.img"]);
        let all = files.list("", true).unwrap();
        assert!(names(&all).contains(&"d/e/y") && !names(&all).contains(&"in/x.img"), "{all:?}");
        let folder = |name: &str| all.iter().find(|row| row.name == name).unwrap().folder;
        assert!(folder("d") && folder("in") && !folder("out") && !folder("up"));
    }

    #[test]
    fn no_path_leads_out() {
        let (folder, files) = files();
        for path in ["../secret", "d/../../secret", "out", "up/secret", "/up/secret", "up"] {
            assert!(matches!(files.get(path), Err(FilesError::Outside { .. })), "{path}");
            assert!(matches!(files.open(path), Err(FilesError::Outside { .. })), "{path}");
            assert!(matches!(files.list(path, false), Err(FilesError::Outside { .. })), "{path}");
            assert!(matches!(files.place(path), Err(FilesError::Outside { .. })), "{path}");
        }
        for path in ["up/new/file", "dangling", "dangling/new"] {
            assert!(matches!(files.place(path), Err(FilesError::Outside { .. })), "{path}");
        }
        for path in ["../secret", "up/secret", "d/../../secret"] {
            assert!(matches!(files.delete(path), Err(FilesError::Outside { .. })), "{path}");
        }
        assert!(matches!(files.get("up/*"), Err(FilesError::NotFound { .. })));
        assert!(matches!(files.delete("/"), Err(FilesError::Root { .. })));
        files.delete("out").unwrap();
        files.delete("up").unwrap();
        assert!(folder.path().join("secret").exists() && files.root().exists());
        // Another folder whose name begins the same.
        std::fs::create_dir(folder.path().join("files2")).unwrap();
        symlink("../files2", files.root().join("beside")).unwrap();
        assert!(matches!(files.get("beside"), Err(FilesError::Outside { .. })));
    }

    #[test]
    fn what_is_not_there_is_told_in_minimegas_words() {
        let (_folder, files) = files();
        assert_eq!(files.get("nosuchfile").unwrap_err().to_string(), "get nosuchfile: file not found");
        assert_eq!(files.get("*.nosuch").unwrap_err().to_string(), "get *.nosuch: file not found");
        assert_eq!(files.delete("c.txt/x").unwrap_err().to_string(), "delete c.txt/x: file not found");
        assert_eq!(files.open("d").unwrap_err().to_string(), "stream d: not a regular file");
        files.get("d").unwrap();
        files.get(&files.root().join("a.img").to_string_lossy()).unwrap();
        for path in ["nosuch", "no/such", "in/new", "d"] {
            assert_eq!(files.place(path).unwrap(), files.root().join(path));
        }
    }

    #[test]
    fn deleting() {
        let (_folder, files) = files();
        files.delete("*.img").unwrap();
        files.delete("in").unwrap();
        assert!(files.root().join("d/x.img").exists(), "of a link, the link is deleted");
        files.delete("d").unwrap();
        assert_eq!(names(&files.list("", true).unwrap()), ["c.txt", "dangling", "out", "up"]);
        // A name with a wildcard's letters is itself first.
        std::fs::write(files.root().join("[c].txt"), "").unwrap();
        files.delete("[c].txt").unwrap();
        assert!(files.root().join("c.txt").exists());
    }
}
