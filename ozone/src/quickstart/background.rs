//! `--detach`: the parent waits until the mount answers, the child goes on without a terminal.

use std::cell::RefCell;
use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::path::Path;

use nix::unistd::{ForkResult, dup2_stderr, dup2_stdin, dup2_stdout, fork, pipe, setsid};

use super::fail;
use crate::{Failure, Outcome};

/// Which process this is after [`detach`].
pub enum Side {
    /// The child has started or failed, as told.
    Parent(Outcome),
    Child(Report),
}

/// Where the good or bad news goes: the terminal, or the waiting parent.
pub struct Report(RefCell<Option<File>>);

const READY: u8 = b'+';

impl Report {
    pub fn to_terminal() -> Self {
        Report(RefCell::new(None))
    }

    pub fn ready(&self, text: &str) {
        match self.0.take() {
            None => println!("{text}"),
            Some(pipe) => send(pipe, READY, text),
        }
    }

    /// On a terminal the caller prints the error itself.
    pub fn failed(&self, failure: &Failure) {
        if let Some(pipe) = self.0.take() {
            send(pipe, failure.status, &failure.text);
        }
    }
}

/// Says it and closes the pipe. A parent that has gone away does not matter to the child.
fn send(mut pipe: File, head: u8, text: &str) {
    let _ = pipe.write_all(&[head]).and_then(|()| pipe.write_all(text.as_bytes()));
}

/// Forks. Must be called before the first thread is started. The child's output goes to `log`.
pub fn detach(log: &Path) -> Result<Side, Failure> {
    let (reader, writer) = pipe().map_err(|e| fail(&e))?;
    // SAFETY: no other thread exists yet, so the child may do whatever a process may.
    match unsafe { fork() }.map_err(|e| fail(&e))? {
        ForkResult::Parent { .. } => {
            drop(writer);
            Ok(Side::Parent(wait(File::from(reader))))
        }
        ForkResult::Child => {
            drop(reader);
            setsid().map_err(|e| fail(&e))?;
            let log_file = OpenOptions::new().create(true).append(true).open(log);
            let log_file = log_file.map_err(|e| fail(&format!("{}: {e}", log.display())))?;
            let null = File::open("/dev/null").map_err(|e| fail(&e))?;
            dup2_stdin(null.as_fd()).map_err(|e| fail(&e))?;
            dup2_stdout(log_file.as_fd()).map_err(|e| fail(&e))?;
            dup2_stderr(log_file.as_fd()).map_err(|e| fail(&e))?;
            std::env::set_current_dir("/").map_err(|e| fail(&e))?;
            Ok(Side::Child(Report(RefCell::new(Some(File::from(writer))))))
        }
    }
}

/// Until the child has said how it went, or died without a word.
fn wait(mut pipe: File) -> Outcome {
    let mut news = Vec::new();
    pipe.read_to_end(&mut news).map_err(|e| fail(&e))?;
    let Some((&head, text)) = news.split_first() else {
        return Err(fail(&"the background process ended before the mount answered"));
    };
    let text = String::from_utf8_lossy(text);
    if head == READY {
        println!("{text}");
        return Ok(());
    }
    Err(Failure::new(head, text))
}
