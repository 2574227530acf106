//! Programs that belong to the daemon: their standard streams are in its hands, each leads a session and process group
//! of its own, and none outlives the daemon.
//!
//! Must not know what the programs are for. [`super::process`] starts those that do outlive the daemon.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::{Mutex, PoisonError, mpsc};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::signal::{Signal, killpg};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use nix::unistd::Pid;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::net::unix::pipe;

use crate::host::ProcessId;

use super::process::{self, ProcessError};

/// How long a program has between SIGTERM and SIGKILL.
pub const GRACE: Duration = Duration::from_secs(2);

/// One end of a program's standard input or output.
#[derive(Debug)]
pub enum Stream {
    /// /dev/null.
    Null,
    /// A pipe whose other end the [`Program`] has.
    Piped,
    /// This descriptor.
    Fd(OwnedFd),
}

/// What to start. Standard error is always a pipe.
#[derive(Debug)]
pub struct Start {
    /// The file to execute.
    pub path: PathBuf,
    /// Its argument vector; the first word is the name that it sees itself under.
    pub words: Vec<String>,
    /// Its standard input.
    pub input: Stream,
    /// Its standard output.
    pub output: Stream,
    /// The network namespace to enter first; None for the daemon's.
    pub network: Option<OwnedFd>,
}

/// A program that was started. Dropping it ends its process group at once.
#[derive(Debug)]
pub struct Program {
    id: ProcessId,
    pidfd: AsyncFd<OwnedFd>,
    /// The write end of its standard input, if that is [`Stream::Piped`].
    pub input: Option<pipe::Sender>,
    /// The read end of its standard output, if that is [`Stream::Piped`].
    pub output: Option<pipe::Receiver>,
    /// The read end of its standard error.
    pub errors: Option<pipe::Receiver>,
    waited: bool,
}

type Job = Box<dyn FnOnce() + Send>;

/// Run a function on the one thread that starts programs. The kernel ends a child that asked for it when the *thread*
/// that started it ends (PR_SET_PDEATHSIG), so this thread lives as long as the daemon.
fn on_launcher(job: Job) -> io::Result<()> {
    static LAUNCHER: Mutex<Option<mpsc::Sender<Job>>> = Mutex::new(None);
    let mut launcher = LAUNCHER.lock().unwrap_or_else(PoisonError::into_inner);
    let sender = match &*launcher {
        Some(sender) => sender,
        None => {
            let (sender, jobs) = mpsc::channel::<Job>();
            std::thread::Builder::new().name("launcher".to_owned()).spawn(move || jobs.iter().for_each(|job| job()))?;
            launcher.insert(sender)
        }
    };
    sender.send(job).map_err(|_| io::Error::other("the thread that starts programs has ended"))
}

fn stdio(stream: Stream) -> Stdio {
    match stream {
        Stream::Null => Stdio::null(),
        Stream::Piped => Stdio::piped(),
        Stream::Fd(fd) => Stdio::from(fd),
    }
}

fn execute(start: Start) -> io::Result<std::process::Child> {
    let Start { path, words, input, output, network } = start;
    let mut command = Command::new(path);
    let (name, args) = words.split_first().expect("a program has a name");
    command.arg0(name).args(args).stdin(stdio(input)).stdout(stdio(output)).stderr(Stdio::piped());
    let (daemon, inside) = (nix::unistd::getpid(), network.as_ref().map(AsRawFd::as_raw_fd));
    let prepare = move || {
        process::detach(inside)?;
        nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)?;
        // The daemon may have ended before that.
        if nix::unistd::getppid() == daemon { Ok(()) } else { Err(Errno::ESRCH.into()) }
    };
    // SAFETY: the closure runs between fork and exec. It makes system calls only: no allocation, no lock, no panic. The
    // descriptor in it belongs to `network`, which lives until after the child has executed its program.
    unsafe { command.pre_exec(prepare) };
    command.spawn()
    // `command` goes here, and with it this process' copies of the descriptors that the child got.
}

/// Start a program. One that cannot be executed is an error here, not an exit status. Needs a tokio runtime with I/O.
pub async fn start(start: Start) -> Result<Program, ProcessError> {
    let program = start.words.first().cloned().unwrap_or_default();
    let failed = |source| ProcessError::Program { program: program.clone(), source };
    let (sender, started) = tokio::sync::oneshot::channel();
    on_launcher(Box::new(move || {
        if let Err(Ok(mut child)) = sender.send(execute(start)) {
            // Nobody waits for it any more.
            let _ = killpg(Pid::from_raw(child.id().cast_signed()), Signal::SIGKILL);
            let _ = child.wait();
        }
    }))
    .map_err(failed)?;
    let started = started.await.unwrap_or_else(|_| Err(io::Error::other("the thread that starts programs failed")));
    let mut child = started.map_err(failed)?;
    let pid = child.id().cast_signed();
    let end = |child: &mut std::process::Child| {
        let _ = killpg(Pid::from_raw(pid), Signal::SIGKILL);
        let _ = child.wait();
    };
    // The pid is the child's until it is waited for.
    let found = ProcessId::of(pid).and_then(|id| {
        let absent = ProcessError::Absent { pid };
        let pidfd = process::open(id)?.ok_or(absent)?;
        // SAFETY: an OwnedFd always gives the same open descriptor, until it is dropped with the registration.
        let pidfd = unsafe { AsyncFd::register_with_interest(pidfd, Interest::READABLE) };
        let watched = pidfd.map_err(|error| error.into()).map_err(|source| ProcessError::Kernel {
            what: "wait for",
            pid,
            source,
        })?;
        Ok((id, watched))
    });
    let (id, pidfd) = found.inspect_err(|_| end(&mut child))?;
    let mut program = Program { id, pidfd, input: None, output: None, errors: None, waited: false };
    // From here on, dropping `program` ends the child.
    program.input = child.stdin.take().map(|fd| pipe::Sender::from_owned_fd(fd.into())).transpose().map_err(failed)?;
    program.output =
        child.stdout.take().map(|fd| pipe::Receiver::from_owned_fd(fd.into())).transpose().map_err(failed)?;
    program.errors =
        child.stderr.take().map(|fd| pipe::Receiver::from_owned_fd(fd.into())).transpose().map_err(failed)?;
    Ok(program)
}

/// A pipe between two programs: what the second reads, what the first writes.
pub fn pipe_between() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC)?)
}

impl Program {
    /// Its pid, which is also the number of its process group.
    pub fn pid(&self) -> i32 {
        self.id.pid
    }

    /// Wait until the program itself has ended. Its pid stays taken until [`Program::release`] or [`Program::finish`].
    pub async fn ended(&self) {
        // A pidfd becomes readable when its process ends, and stays so. An error here would be one of the runtime, which
        // is going away then.
        let _ = self.pidfd.readable().await;
    }

    /// Send a signal to its process group.
    pub fn signal(&self, signal: Signal) {
        // It is our child and was not waited for, so the number is its own. No member is left: fine.
        let _ = killpg(Pid::from_raw(self.id.pid), signal);
    }

    /// End it: SIGTERM to its group, SIGKILL after [`GRACE`]; returns when it has ended.
    pub async fn stop(&self) {
        self.signal(Signal::SIGTERM);
        if tokio::time::timeout(GRACE, self.ended()).await.is_err() {
            self.signal(Signal::SIGKILL);
            self.ended().await;
        }
    }

    /// How it ended; whatever is left of its process group is ended too. To be called once it has ended.
    pub fn finish(self) -> Option<ExitStatus> {
        self.signal(Signal::SIGKILL);
        self.release()
    }

    /// How it ended; whatever is left of its process group is let go. To be called once it has ended.
    pub fn release(mut self) -> Option<ExitStatus> {
        self.waited = true;
        match waitid(Id::PIDFd(self.pidfd.get_ref().as_fd()), WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG) {
            Ok(WaitStatus::Exited(_, code)) => Some(ExitStatus::from_raw((code & 0xff) << 8)),
            Ok(WaitStatus::Signaled(_, signal, core)) => {
                Some(ExitStatus::from_raw(signal as i32 | if core { 0x80 } else { 0 }))
            }
            _ => None,
        }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        if self.waited {
            return;
        }
        self.signal(Signal::SIGKILL);
        let Ok(pidfd) = self.pidfd.get_ref().try_clone() else { return };
        // Ending takes a moment, and a task must not wait for it. Without a thread it stays a zombie until the daemon ends.
        let wait = move || waitid(Id::PIDFd(pidfd.as_fd()), WaitPidFlag::WEXITED);
        let _ = std::thread::Builder::new().name("wait".to_owned()).spawn(wait);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    async fn shell(script: &str, input: Stream) -> Program {
        let words = ["sh", "-c", script].map(str::to_owned).to_vec();
        start(Start { path: "/bin/sh".into(), words, input, output: Stream::Piped, network: None }).await.unwrap()
    }

    #[tokio::test]
    async fn streams_and_status_are_the_programs() {
        let mut program = shell("cat; echo wrong >&2; exit 3", Stream::Piped).await;
        let mut input = program.input.take().unwrap();
        input.write_all(b"hello").await.unwrap();
        drop(input);
        let (mut out, mut err) = (String::new(), String::new());
        program.output.take().unwrap().read_to_string(&mut out).await.unwrap();
        program.errors.take().unwrap().read_to_string(&mut err).await.unwrap();
        program.ended().await;
        assert_eq!((out.as_str(), err.as_str(), program.finish().unwrap().code()), ("hello", "wrong\n", Some(3)));
    }

    #[tokio::test]
    async fn a_program_that_ignores_sigterm_is_ended_with_its_group() {
        let mut program = shell("trap '' TERM; (trap '' TERM; sleep 1000) & echo up; wait; wait", Stream::Null).await;
        let mut output = program.output.take().unwrap();
        output.read_exact(&mut [0; 3]).await.unwrap();
        program.stop().await;
        assert_eq!(program.finish().unwrap().signal(), Some(9));
        // Nobody holds the other end any more.
        assert_eq!(output.read(&mut [0; 1]).await.unwrap(), 0);
    }

    #[tokio::test]
    async fn a_dropped_program_ends_with_its_group() {
        let mut program = shell("sleep 1000 & echo up; wait", Stream::Null).await;
        let mut output = program.output.take().unwrap();
        output.read_exact(&mut [0; 3]).await.unwrap();
        drop(program);
        assert_eq!(output.read(&mut [0; 1]).await.unwrap(), 0);
    }

    #[tokio::test]
    async fn what_cannot_be_executed_is_an_error() {
        let words = vec!["nosuch".to_owned()];
        let asked = Start { path: "/nosuch".into(), words, input: Stream::Null, output: Stream::Null, network: None };
        assert!(matches!(start(asked).await, Err(ProcessError::Program { program, .. }) if program == "nosuch"));
    }
}
