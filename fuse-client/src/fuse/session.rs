//! One mounted session: INIT, the reader threads, the end.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use fuser::{Config, InitFlags as Flags, KernelConfig, SessionACL};
use tokio::runtime::Handle;

use super::adapter::Adapter;
use super::convert::Numbers;
use super::kernel::Kernel;
use crate::look::Looking;
use crate::vfs::{Backend, Vfs};

/// Largest READ and WRITE.
const MAX_IO: u32 = 1 << 20;
/// READs ahead and other requests that nobody waits for, at a time: 32 MiB of replies at most.
const MAX_BACKGROUND: u16 = 32;

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
        looking: Arc<Looking>,
        runtime: Handle,
        device: OwnedFd,
        readers: usize,
    ) -> io::Result<Self> {
        let numbers = Numbers { root: vfs.root() };
        let mut config = Config::default();
        config.n_threads = Some(readers);
        let adapter = Adapter::new(vfs, looking, runtime, numbers, readers);
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

/// What we ask of the kernel, for as much as it has.
///
/// FUSE_WRITEBACK_CACHE is never set: with it the kernel trusts its own sizes and times for ever.
/// FUSE_SETXATTR_EXT is left alone because fuser cannot read the longer request.
pub(super) fn negotiate(config: &mut KernelConfig) {
    let wanted = [
        Flags::FUSE_ASYNC_READ,
        Flags::FUSE_BIG_WRITES,
        Flags::FUSE_MAX_PAGES,
        Flags::FUSE_PARALLEL_DIROPS,
        Flags::FUSE_DO_READDIRPLUS,
        Flags::FUSE_READDIRPLUS_AUTO,
        Flags::FUSE_HANDLE_KILLPRIV_V2,
        // The kernel checks permissions by the ACLs, which it asks for anew whenever it asks for
        // attributes, and forgets both when it has set an ACL or changed the mode.
        Flags::FUSE_POSIX_ACL,
        // The umask comes along: it counts only where the directory has no default ACL.
        Flags::FUSE_DONT_MASK,
        // Data is forgotten when a lease is recalled, not when a time stamp looks different.
        Flags::FUSE_EXPLICIT_INVAL_DATA,
        // A symlink's target never changes.
        Flags::FUSE_CACHE_SYMLINKS,
        Flags::FUSE_ASYNC_DIO,
        // Locks are ours, of fcntl(2) and of flock(2); but on directories the kernel never asks.
        Flags::FUSE_POSIX_LOCKS,
        Flags::FUSE_FLOCK_LOCKS,
        // Files opened with O_APPEND, and shared ones, can still be mapped.
        Flags::FUSE_DIRECT_IO_ALLOW_MMAP,
        // Inode numbers are for ever, so a handle of name_to_handle_at(2) is: `.` is looked up in it.
        Flags::FUSE_EXPORT_SUPPORT,
    ];
    for flag in wanted {
        if config.add_capabilities(flag).is_err() {
            tracing::debug!(?flag, "this kernel lacks a FUSE capability");
        }
    }
    // Each of these answers with the nearest value that is possible, which then serves.
    let _ = config.set_max_write(MAX_IO);
    if let Err(most) = config.set_max_readahead(u32::MAX) {
        let _ = config.set_max_readahead(most);
    }
    let _ = config.set_max_background(MAX_BACKGROUND);
    let _ = config.set_congestion_threshold(MAX_BACKGROUND * 3 / 4);
}
