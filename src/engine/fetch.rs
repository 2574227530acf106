//! What is fetched into the files folder: downloads over HTTP, and archives unpacked.
//!
//! A file appears under its name when all of it is there, and one that is there already is not fetched again.

use std::collections::HashMap;
use std::fs::OpenOptions;
use std::io::{Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use sha2::{Digest, Sha256};
use ureq::http::Uri;

use super::files::{Files, FilesError};
use super::progress;

/// The largest download, in bytes.
const LIMIT: u64 = 64 << 30;

/// How long a server may take until a connection stands, and until it begins to answer.
const ANSWER: Duration = Duration::from_secs(15);

/// How long a download may stand still.
const STILL: Duration = Duration::from_secs(30);

/// How long a download may take.
const LONGEST: Duration = Duration::from_secs(6 * 3600);

/// What ends the names of archives that `tar` unpacks.
const ARCHIVES: &[&str] =
    &[".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".tar.zst", ".tzst", ".tar.lzma"];

/// Why something was not fetched. Nothing of it is left.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// An address that is none.
    #[error("`{url}` is no address of a file: {problem}")]
    Url {
        /// As given.
        url: String,
        /// What is wrong with it.
        problem: String,
    },
    /// The server.
    #[error("cannot fetch {url}: {problem}")]
    Http {
        /// The address, without user and password.
        url: String,
        /// What went wrong.
        problem: String,
    },
    /// A name that is not an archive's.
    #[error("tar: {path}: no archive by its name, expected one that ends in {}", ARCHIVES.join(", "))]
    Archive {
        /// As given.
        path: String,
    },
    /// `tar`.
    #[error("cannot unpack {path}: {problem}")]
    Tar {
        /// As given.
        path: String,
        /// What it said.
        problem: String,
    },
    /// The files folder.
    #[error(transparent)]
    Files(#[from] FilesError),
    /// A file or folder of ours.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// The path.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
}

/// A download that is under way, as `file status` shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FetchRow {
    /// The file that it will be.
    pub name: String,
    /// Where it is meanwhile.
    pub place: PathBuf,
    /// The bytes that are here.
    pub done: u64,
    /// All bytes, where the server said.
    pub size: Option<u64>,
}

struct Running {
    name: String,
    place: PathBuf,
    done: AtomicU64,
    /// 0 while it is not known.
    size: AtomicU64,
    given_up: AtomicBool,
}

/// What is under way.
#[derive(Default)]
pub(super) struct Fetches {
    running: Mutex<Vec<Arc<Running>>>,
    /// One turn for each file, so that two commands that want the same one fetch it once.
    turns: Mutex<HashMap<PathBuf, Arc<tokio::sync::Mutex<()>>>>,
}

impl Fetches {
    fn running(&self) -> MutexGuard<'_, Vec<Arc<Running>>> {
        self.running.lock().expect("no code panics while it holds the list of downloads")
    }

    fn turn(&self, path: &Path) -> Arc<tokio::sync::Mutex<()>> {
        let mut turns = self.turns.lock().expect("no code panics while it holds the turns");
        turns.retain(|_, turn| Arc::strong_count(turn) > 1);
        Arc::clone(turns.entry(path.to_owned()).or_default())
    }
}

/// Takes a download off the list, and its part of a file with it, however it ends.
struct Listed<'a>(&'a Fetches, Arc<Running>);

impl Drop for Listed<'_> {
    fn drop(&mut self) {
        self.1.given_up.store(true, Ordering::Relaxed);
        self.0.running().retain(|running| !Arc::ptr_eq(running, &self.1));
        // Renamed into place if all went well.
        let _ = std::fs::remove_file(&self.1.place);
    }
}

fn io(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> FetchError {
    let path = path.to_owned();
    move |source| FetchError::Io { action, path, source }
}

/// Where the file of an address goes: `HOST/PATH`, or `HOST-PORT/PATH`; a query adds a digest of itself.
fn name_of(url: &str) -> Result<(Uri, String), FetchError> {
    let wrong = |problem: &str| FetchError::Url { url: without_password(url), problem: problem.to_owned() };
    let uri: Uri = url.parse().map_err(|error: ureq::http::uri::InvalidUri| wrong(&error.to_string()))?;
    if !matches!(uri.scheme_str(), Some("http" | "https")) {
        return Err(wrong("it begins with neither http:// nor https://"));
    }
    let host = uri.host().filter(|host| !host.is_empty()).ok_or_else(|| wrong("it names no host"))?;
    let mut name = host.trim_matches(['[', ']']).to_ascii_lowercase();
    if let Some(port) = uri.port_u16() {
        name.push_str(&format!("-{port}"));
    }
    if uri.path().ends_with('/') {
        return Err(wrong("it names a folder"));
    }
    for part in uri.path().split('/').filter(|part| !part.is_empty()) {
        if part == "." || part == ".." {
            return Err(wrong("`.` and `..` are not followed"));
        }
        name.push('/');
        name.push_str(part);
    }
    if let Some(query) = uri.query() {
        let digest = Sha256::digest(query.as_bytes());
        name.push_str(&format!("-{:02x}{:02x}{:02x}{:02x}", digest[0], digest[1], digest[2], digest[3]));
    }
    Ok((uri, name))
}

/// An address as it may stand in an answer.
fn without_password(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return url.to_owned() };
    let (authority, path) = rest.find('/').map_or((rest, ""), |at| rest.split_at(at));
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    format!("{scheme}://{host}{path}")
}

fn make_folder(path: &Path) -> Result<(), FetchError> {
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(io("create", path))
}

impl Files {
    /// A name in the folder that nothing has.
    fn scratch(&self) -> PathBuf {
        self.root().join(format!("transfer_{}", uuid::Uuid::new_v4().simple()))
    }

    /// What is being downloaded.
    pub fn transfers(&self) -> Vec<FetchRow> {
        let size = |running: &Running| Some(running.size.load(Ordering::Relaxed)).filter(|size| *size > 0);
        let row = |running: &Arc<Running>| FetchRow {
            name: running.name.clone(),
            place: running.place.clone(),
            done: running.done.load(Ordering::Relaxed),
            size: size(running),
        };
        self.fetches.running().iter().map(row).collect()
    }

    /// Download a file, unless it is here, and give its path.
    pub async fn download(&self, url: &str) -> Result<PathBuf, FetchError> {
        let (_, name) = name_of(url)?;
        let path = self.place(&name)?;
        let turn = self.fetches.turn(&path);
        let _turn = turn.lock().await;
        if path.is_file() {
            return Ok(path);
        }
        let place = self.scratch();
        let running = Arc::new(Running {
            name,
            place: place.clone(),
            done: AtomicU64::new(0),
            size: AtomicU64::new(0),
            given_up: AtomicBool::new(false),
        });
        self.fetches.running().push(Arc::clone(&running));
        let _listed = Listed(&self.fetches, Arc::clone(&running));
        tracing::info!(url = without_password(url), "fetching");
        let (sender, mut ended) = tokio::sync::oneshot::channel();
        let (thread_url, thread_running) = (url.to_owned(), Arc::clone(&running));
        // A thread of its own: the few that blocking work shares are not for what may take hours.
        std::thread::Builder::new()
            .name("fetch".to_owned())
            .spawn(move || drop(sender.send(fetch(&thread_url, &thread_running))))
            .map_err(io("start a thread for", &place))?;
        let mut seen = 0;
        let mut still = Duration::ZERO;
        let step = Duration::from_millis(500);
        let result = loop {
            match tokio::time::timeout(step, &mut ended).await {
                Ok(result) => break result.unwrap_or_else(|_| Err("the download broke off".to_owned())),
                Err(_) => {
                    let done = running.done.load(Ordering::Relaxed);
                    progress::report(|| progress_text(&running));
                    still = if done == seen { still + step } else { Duration::ZERO };
                    seen = done;
                    if still > STILL + ANSWER {
                        break Err(format!("nothing came for {} s", still.as_secs()));
                    }
                }
            }
        };
        result.map_err(|problem| FetchError::Http { url: without_password(url), problem })?;
        make_folder(path.parent().unwrap_or(self.root()))?;
        std::fs::rename(&place, &path).map_err(io("create", &path))?;
        Ok(path)
    }

    /// Unpack an archive of the folder beside itself, into a folder of its name without its ending, unless that is
    /// there; and give the path of the folder.
    pub async fn unpack(&self, archive: &str) -> Result<PathBuf, FetchError> {
        let (real, relative) = self.archive(archive)?;
        let name = relative.to_string_lossy().into_owned();
        // The longest ending, so that `a.tar.gz` is `a`.
        let ending = ARCHIVES.iter().filter(|end| name.ends_with(*end)).max_by_key(|end| end.len());
        let stem =
            ending.map(|end| &name[..name.len() - end.len()]).filter(|stem| !stem.is_empty() && !stem.ends_with('/'));
        let stem = stem.ok_or_else(|| FetchError::Archive { path: archive.to_owned() })?;
        let path = self.place(stem)?;
        let turn = self.fetches.turn(&path);
        let _turn = turn.lock().await;
        if path.is_dir() {
            return Ok(path);
        }
        let failed = |problem: String| FetchError::Tar { path: archive.to_owned(), problem };
        if path.exists() {
            return Err(failed(format!("{} is there and is no folder", path.display())));
        }
        let place = self.scratch();
        make_folder(&place)?;
        progress::report(|| format!("unpacking {name}"));
        // GNU tar takes away a leading `/` and refuses `..`, and makes links last, so that nothing is written through one.
        let output = tokio::process::Command::new("tar")
            .args(["--extract", "--numeric-owner", "--file"])
            .arg(&real)
            .arg("--directory")
            .arg(&place)
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output()
            .await;
        let problem = match output {
            Ok(output) if output.status.success() => None,
            Ok(output) => Some(first_line(&output.stderr).unwrap_or_else(|| output.status.to_string())),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                Some("the program `tar` is not installed (Debian package tar)".to_owned())
            }
            Err(error) => Some(error.to_string()),
        };
        let unpacked = match problem {
            None => std::fs::rename(&place, &path).map_err(io("create", &path)),
            Some(problem) => Err(failed(problem)),
        };
        if unpacked.is_err() {
            // What could not be unpacked is of no use; a part that cannot be deleted is in `file list`.
            let _ = std::fs::remove_dir_all(&place);
        }
        unpacked.map(|()| path)
    }
}

fn first_line(text: &[u8]) -> Option<String> {
    String::from_utf8_lossy(text).lines().next().map(str::to_owned).filter(|line| !line.is_empty())
}

fn progress_text(running: &Running) -> String {
    let done = running.done.load(Ordering::Relaxed) >> 20;
    match running.size.load(Ordering::Relaxed) {
        0 => format!("fetching {}: {done} MiB", running.name),
        size => format!("fetching {}: {done} of {} MiB", running.name, size >> 20),
    }
}

/// The download itself, on a thread that may wait.
fn fetch(url: &str, running: &Running) -> Result<(), String> {
    let provider = rustls::crypto::ring::default_provider();
    let tls = ureq::tls::TlsConfig::builder()
        .root_certs(ureq::tls::RootCerts::PlatformVerifier)
        .unversioned_rustls_crypto_provider(Arc::new(provider))
        .build();
    let agent: ureq::Agent = ureq::Agent::config_builder()
        .tls_config(tls)
        .user_agent(concat!("megaform/", env!("CARGO_PKG_VERSION")))
        .timeout_resolve(Some(ANSWER))
        .timeout_connect(Some(ANSWER))
        .timeout_recv_response(Some(ANSWER))
        .timeout_recv_body(Some(LONGEST))
        .build()
        .into();
    let mut response = agent.get(url).call().map_err(|error| match error {
        ureq::Error::StatusCode(code) => format!("the server answered {code}{}", reason(code)),
        other => other.to_string(),
    })?;
    let size = response.body().content_length();
    running.size.store(size.unwrap_or(0), Ordering::Relaxed);
    if size.is_some_and(|size| size > LIMIT) {
        return Err(format!("it has {} GiB, the limit is {}", size.unwrap_or(0) >> 30, LIMIT >> 30));
    }
    if running.given_up.load(Ordering::Relaxed) {
        return Err("given up".to_owned());
    }
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&running.place)
        .map_err(|error| format!("{}: {error}", running.place.display()))?;
    let mut body = response.body_mut().as_reader();
    let mut buffer = vec![0; 64 << 10];
    loop {
        let read = body.read(&mut buffer).map_err(|error| error.to_string())?;
        if read == 0 {
            break;
        }
        if running.given_up.load(Ordering::Relaxed) {
            return Err("given up".to_owned());
        }
        file.write_all(&buffer[..read]).map_err(|error| format!("{}: {error}", running.place.display()))?;
        let done = running.done.fetch_add(read as u64, Ordering::Relaxed) + read as u64;
        if done > LIMIT {
            return Err(format!("it has more than {} GiB", LIMIT >> 30));
        }
    }
    let done = running.done.load(Ordering::Relaxed);
    match size {
        Some(size) if size != done => Err(format!("only {done} of {size} bytes came")),
        _ => Ok(()),
    }
}

/// What a status code of HTTP means, in words.
fn reason(code: u16) -> String {
    let reason = ureq::http::StatusCode::from_u16(code).ok().and_then(|code| code.canonical_reason());
    reason.map(|reason| format!(" {reason}")).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_a_download_goes() {
        for (url, name) in [
            ("http://Host/a/b.img", "host/a/b.img"),
            ("http://u:p@127.0.0.1:80/b%20c", "127.0.0.1-80/b%20c"),
            ("https://[::1]:8443//x//y", "::1-8443/x/y"),
            ("http://h/a?v=1", "h/a-a798de8e"),
        ] {
            assert_eq!(name_of(url).unwrap().1, name, "{url}");
        }
        for url in ["http://h", "http://h/", "http://h/a/", "http:///a", "http://h/../x", "http:x", "http://h /a"] {
            assert!(name_of(url).is_err(), "{url}");
        }
        assert_eq!(without_password("http://u:p@h/a@b"), "http://h/a@b");
    }
}
