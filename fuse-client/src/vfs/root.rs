//! What must be answered with all servers gone: the root's attributes, its ACL and the space.
//!
//! Each question is asked anew each time. Whoever asks waits for the answer, but not longer than
//! [`PATIENCE`]; then the last known answer serves. Once a question is overdue nobody waits any more,
//! until an answer has come: `df` asks four times, and must not wait four times.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use ozone_client::StatFs;
use ozone_types::{Attr, ErrorCode, FsResult, RetryClass, XattrName};
use parking_lot::Mutex;

use super::Backend;

/// How long an answer is waited for where an older one would do.
const PATIENCE: Duration = Duration::from_millis(700);

pub(super) struct LastKnown {
    attr: Arc<Question<Attr>>,
    acl: Arc<Question<Option<Bytes>>>,
    statfs: Arc<Question<StatFs>>,
    /// Some question is overdue: the servers are out of reach.
    overdue: Arc<AtomicBool>,
}

impl LastKnown {
    pub async fn ask<B: Backend>(client: &B) -> FsResult<LastKnown> {
        let attr = client.getattr(client.root()).await?;
        let acl = access_acl(client).await?;
        let statfs = client.statfs().await?;
        let overdue = Arc::new(AtomicBool::new(false));
        Ok(LastKnown {
            attr: Question::new(attr),
            acl: Question::new(acl),
            statfs: Question::new(statfs),
            overdue,
        })
    }

    pub async fn attr<B: Backend>(&self, client: &Arc<B>) -> FsResult<Attr> {
        let client = client.clone();
        self.attr.ask(&self.overdue, async move { client.getattr(client.root()).await }).await
    }

    /// The root's access ACL, if it has one.
    pub async fn acl<B: Backend>(&self, client: &Arc<B>) -> FsResult<Option<Bytes>> {
        let client = client.clone();
        self.acl.ask(&self.overdue, async move { access_acl(&*client).await }).await
    }

    pub async fn statfs<B: Backend>(&self, client: &Arc<B>) -> FsResult<StatFs> {
        let client = client.clone();
        self.statfs.ask(&self.overdue, async move { client.statfs().await }).await
    }
}

/// That there is none is an answer like any other.
async fn access_acl<B: Backend>(client: &B) -> FsResult<Option<Bytes>> {
    match client.getxattr(client.root(), XattrName::access_acl().as_bytes()).await {
        Err(err) if err.code() == ErrorCode::NoData => Ok(None),
        answer => answer.map(Some),
    }
}

/// A question whose last answer is kept.
struct Question<T> {
    last: Mutex<T>,
    /// A task waits for the answer to an overdue question.
    pursued: AtomicBool,
}

impl<T: Clone + Send + Sync + 'static> Question<T> {
    fn new(answer: T) -> Arc<Self> {
        Arc::new(Question { last: Mutex::new(answer), pursued: AtomicBool::new(false) })
    }

    /// Errors: final refusals of the servers only.
    async fn ask(
        self: &Arc<Self>,
        overdue: &Arc<AtomicBool>,
        question: impl Future<Output = FsResult<T>> + Send + 'static,
    ) -> FsResult<T> {
        let mut question = Box::pin(question);
        if !overdue.load(Ordering::Acquire) {
            match tokio::time::timeout(PATIENCE, &mut question).await {
                Ok(answer) => return self.learn(answer),
                Err(_) => tracing::warn!("no server answers; showing what is known of the root"),
            }
            overdue.store(true, Ordering::Release);
        }
        if !self.pursued.swap(true, Ordering::AcqRel) {
            let (this, overdue) = (self.clone(), overdue.clone());
            tokio::spawn(async move {
                // An error has been seen by whoever asks next; here only an answer matters.
                let _ = this.learn(question.await);
                this.pursued.store(false, Ordering::Release);
                overdue.store(false, Ordering::Release);
            });
        }
        Ok(self.last.lock().clone())
    }

    /// An error that is no answer leaves the last known value in place.
    fn learn(&self, answer: FsResult<T>) -> FsResult<T> {
        let mut last = self.last.lock();
        match answer {
            Ok(value) => *last = value,
            Err(err) if err.retry_class() == RetryClass::Final => return Err(err),
            Err(_) => {}
        }
        Ok(last.clone())
    }
}

#[cfg(test)]
mod tests {
    use ozone_types::ErrorCode;
    use tokio::sync::oneshot;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_overdue_question_is_waited_for_once() {
        let question = Question::new(1);
        let overdue = Arc::new(AtomicBool::new(false));
        let (answer, pending) = oneshot::channel::<u32>();
        let start = tokio::time::Instant::now();
        let asked = async move { Ok(pending.await.unwrap()) };
        assert_eq!(question.ask(&overdue, asked).await.unwrap(), 1, "the last known");
        assert_eq!(start.elapsed(), PATIENCE);
        for _ in 0..3 {
            assert_eq!(question.ask(&overdue, std::future::pending()).await.unwrap(), 1);
        }
        assert_eq!(start.elapsed(), PATIENCE, "nobody waits again");

        answer.send(2).unwrap();
        while overdue.load(Ordering::Acquire) {
            tokio::task::yield_now().await;
        }
        assert_eq!(*question.last.lock(), 2);
        assert_eq!(question.ask(&overdue, async { Ok(3) }).await.unwrap(), 3, "asked anew");
    }

    #[tokio::test]
    async fn only_a_refusal_is_an_error() {
        let question = Question::new(1);
        let overdue = Arc::new(AtomicBool::new(false));
        let unavailable = async { Err(ErrorCode::Unavailable.into()) };
        assert_eq!(question.ask(&overdue, unavailable).await.unwrap(), 1);
        let gone = question.ask(&overdue, async { Err(ErrorCode::Stale.into()) }).await;
        assert_eq!(gone.unwrap_err().code(), ErrorCode::Stale);
    }
}
