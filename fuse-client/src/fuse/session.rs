//! One mounted session: INIT, the reader threads, the end.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use fuser::{Config, SessionACL};
use tokio::runtime::Handle;

use super::adapter::Adapter;
use super::convert::Numbers;
use super::kernel::Kernel;
use crate::vfs::{Backend, Vfs};

pub(crate) struct Session<B: Backend> {
    session: fuser::Session<Adapter<B>>,
    numbers: Numbers,
}

impl<B: Backend> Session<B> {
    /// Completes INIT on a mounted /dev/fuse. The mount answers once [`Session::run`] runs. Who may
    /// use it is the kernel's business (`allow_other`).
    ///
    /// `readers` threads read requests. Each has a buffer of 16 MiB of address space, of which as much
    /// becomes memory as the largest request needs: 1 MiB.
    pub fn start(
        vfs: Arc<Vfs<B>>,
        runtime: Handle,
        device: OwnedFd,
        readers: usize,
    ) -> io::Result<Self> {
        let numbers = Numbers { root: vfs.root() };
        let mut config = Config::default();
        config.n_threads = Some(readers);
        let adapter = Adapter::new(vfs, runtime, numbers);
        let session = fuser::Session::from_fd(adapter, device, SessionACL::All, config)?;
        Ok(Session { session, numbers })
    }

    pub fn kernel(&self) -> Arc<Kernel> {
        Arc::new(Kernel { notifier: self.session.notifier(), numbers: self.numbers })
    }

    /// Serves until the kernel has unmounted or aborted.
    pub fn run(self) -> io::Result<()> {
        self.session.run()
    }
}
