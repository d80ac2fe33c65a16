//! From a decoded request to its reply: run, count, reply.

use std::future::Future;
use std::sync::Arc;

use ozone_types::FsResult;
use tokio::runtime::Handle;

use super::answer::{Asked, answer};
use super::convert::{self, Numbers};
use super::reply::{Reply, View};
use crate::look::Outcome;
use crate::vfs::{Backend, Vfs};

/// A call that is about to be run.
pub(super) struct Running<'a, B: Backend> {
    pub runtime: &'a Handle,
    pub vfs: &'a Arc<Vfs<B>>,
    pub numbers: Numbers,
    pub asked: Asked,
}

impl<B: Backend> Running<'_, B> {
    /// Runs an operation of the vfs and replies with its result: on this thread if it need not wait.
    pub fn run<T, F>(self, reply: impl Reply<T>, operation: impl FnOnce(Arc<Vfs<B>>) -> F)
    where
        T: Send + 'static,
        F: Future<Output = FsResult<T>> + Send + 'static,
    {
        let Running { runtime, vfs, numbers, asked } = self;
        let operation = operation(vfs.clone());
        let vfs = vfs.clone();
        answer(runtime, asked, operation, move |asked, result| match result {
            Ok(result) => {
                asked.answered(reply.outcome(&result));
                reply.tell(&View { numbers, keep: &|attr| vfs.keep(attr) }, result);
            }
            Err(err) => {
                let errno = convert::errno(&err);
                asked.answered(Outcome::error(errno.code()));
                reply.refuse(errno);
            }
        });
    }
}
