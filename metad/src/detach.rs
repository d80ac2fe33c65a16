//! Work that must not stop half-way when its caller goes away.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::runtime::Handle;

/// Runs on the caller's task like any future (no hop). If the caller is dropped before the end, the
/// rest runs on a task of its own: a proposal that is under way keeps its guards until it is decided.
pub fn to_the_end<F>(work: F) -> ToTheEnd<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    ToTheEnd { work: Some(Box::pin(work)) }
}

pub struct ToTheEnd<T: Send + 'static> {
    work: Option<Pin<Box<dyn Future<Output = T> + Send>>>,
}

impl<T: Send + 'static> Future for ToTheEnd<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<T> {
        match &mut self.work {
            Some(work) => {
                let result = std::task::ready!(work.as_mut().poll(cx));
                self.work = None;
                Poll::Ready(result)
            }
            // Polled after its end, which is the caller's mistake.
            None => Poll::Pending,
        }
    }
}

impl<T: Send + 'static> Drop for ToTheEnd<T> {
    fn drop(&mut self) {
        if let (Some(work), Ok(runtime)) = (self.work.take(), Handle::try_current()) {
            runtime.spawn(work);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::sync::oneshot;

    #[tokio::test]
    async fn the_rest_runs_when_the_caller_is_gone() {
        let (go, may_go) = oneshot::channel::<()>();
        let (done, is_done) = oneshot::channel();
        let mut work = to_the_end(async move {
            may_go.await.unwrap();
            done.send(7).unwrap();
        });
        assert!(futures::poll!(&mut work).is_pending());
        drop(work);
        go.send(()).unwrap();
        assert_eq!(is_done.await, Ok(7));
        assert_eq!(to_the_end(async { 8 }).await, 8);
    }
}
