//! The one driver of deadlines, retries and leader hints.

use std::future::Future;
use std::time::Duration;

use ozone_proto::status::{from_status, leader_hint};
use ozone_types::{ErrorCode, FsError, FsResult, RetryClass};
use parking_lot::Mutex;
use tokio::time::Instant;
use tonic::transport::Channel;
use tonic::{Response, Status};

use crate::net::Channels;

const BACKOFF_FIRST: Duration = Duration::from_millis(5);
const BACKOFF_MAX: Duration = Duration::from_millis(200);

/// How long and how often a call is tried.
#[derive(Clone, Copy, Debug)]
pub struct Retry {
    /// All attempts together; `Duration::MAX`: until it is answered.
    pub deadline: Duration,
    /// One attempt.
    pub attempt: Duration,
    /// Executing the request twice does what executing it once does (reads, and changes that carry
    /// a sequence number), so it is sent again when its fate is unknown.
    pub idempotent: bool,
}

impl Retry {
    /// For requests of a mount: wait for the servers as long as it takes.
    pub const FOREVER: Retry =
        Retry { deadline: Duration::MAX, attempt: Duration::from_secs(30), idempotent: true };

    /// For commands of people: give up after `deadline`.
    pub const fn within(deadline: Duration) -> Retry {
        Retry { deadline, attempt: Duration::from_secs(10), idempotent: false }
    }
}

/// For [`LeaderClient::call`]: the error `code` is an answer that the caller wants to have, though the
/// same request might succeed later.
pub fn answered<T>(
    result: Result<Response<T>, Status>,
    code: Option<ErrorCode>,
) -> Result<Response<FsResult<T>>, Status> {
    match result {
        Ok(reply) => Ok(reply.map(Ok)),
        Err(status) => match from_status(&status) {
            err if Some(err.code()) == code => Ok(Response::new(Err(err))),
            _ => Err(status),
        },
    }
}

/// Calls to whichever member of a Raft group leads.
#[derive(Debug)]
pub struct LeaderClient {
    channels: Channels,
    /// Lock order: a leaf, held for no call.
    route: Mutex<Route>,
}

#[derive(Debug)]
struct Route {
    members: Vec<String>,
    /// The address last known to answer, or the next to try.
    current: String,
}

impl LeaderClient {
    /// `members` are `host:port` of the group's RPC ports. Error: INVALID_REQUEST if there is none.
    pub fn new(channels: Channels, members: Vec<String>) -> FsResult<Self> {
        let current = members
            .first()
            .cloned()
            .ok_or_else(|| FsError::with(ErrorCode::Invalid, "no server address was given"))?;
        Ok(LeaderClient { channels, route: Mutex::new(Route { members, current }) })
    }

    /// The address the next call goes to.
    pub fn current(&self) -> String {
        self.route.lock().current.clone()
    }

    /// Calls `f` with a channel to the leader until it succeeds, fails for good, or time is up. The
    /// error of the last attempt is returned, with the address in its text where it was transport.
    pub async fn call<T, F, Fut>(&self, retry: Retry, f: F) -> FsResult<T>
    where
        F: Fn(Channel) -> Fut,
        Fut: Future<Output = Result<Response<T>, Status>>,
    {
        let end = Instant::now().checked_add(retry.deadline);
        let mut backoff = BACKOFF_FIRST;
        loop {
            let addr = self.current();
            let err = match self.attempt(&addr, retry, end, &f).await {
                Ok(reply) => return Ok(reply),
                Err(err) => err,
            };
            let again = match err.class {
                RetryClass::Again => true,
                RetryClass::MaybeDone => retry.idempotent,
                RetryClass::Final | RetryClass::Reopen => false,
            };
            if !again || end.is_some_and(|end| Instant::now() + backoff >= end) {
                return Err(err.error);
            }
            let hinted = self.reroute(&addr, &err);
            tracing::trace!(%addr, error = %err.error, "trying again");
            if !hinted {
                tokio::time::sleep(backoff).await;
                backoff = (backoff * 2).min(BACKOFF_MAX);
            }
        }
    }

    async fn attempt<T, F, Fut>(
        &self,
        addr: &str,
        retry: Retry,
        end: Option<Instant>,
        f: &F,
    ) -> Result<T, Failure>
    where
        F: Fn(Channel) -> Fut,
        Fut: Future<Output = Result<Response<T>, Status>>,
    {
        let channel = self.channels.get(addr).map_err(|e| Failure::new(e, None, false))?;
        let limit = match end {
            Some(end) => retry.attempt.min(end.saturating_duration_since(Instant::now())),
            None => retry.attempt,
        };
        match tokio::time::timeout(limit, f(channel)).await {
            Ok(Ok(reply)) => Ok(reply.into_inner()),
            Ok(Err(status)) => Err(failure(addr, &status)),
            Err(_) => {
                let text = format!("{addr} did not answer within {limit:?}");
                Err(Failure::new(FsError::with(ErrorCode::Timeout, text), None, true))
            }
        }
    }

    /// Chooses the next address; true when a leader was named, so that no pause is needed.
    fn reroute(&self, failed: &str, failure: &Failure) -> bool {
        let mut route = self.route.lock();
        if route.current != failed {
            return false; // somebody else has moved on already
        }
        if let Some(leader) = failure.leader.as_ref().filter(|l| *l != failed) {
            route.current = leader.clone();
            return true;
        }
        if failure.move_on {
            let at = route.members.iter().position(|m| m == failed).map_or(0, |at| at + 1);
            route.current = route.members[at % route.members.len()].clone();
        }
        false
    }
}

#[derive(Debug)]
struct Failure {
    error: FsError,
    class: RetryClass,
    leader: Option<String>,
    /// The fault lies with this server: try the next one.
    move_on: bool,
}

impl Failure {
    fn new(error: FsError, leader: Option<String>, move_on: bool) -> Self {
        Failure { class: error.retry_class(), error, leader, move_on }
    }
}

fn failure(addr: &str, status: &Status) -> Failure {
    if never_connected(status) {
        let text = format!("{addr} cannot be reached: {}", status.message());
        return Failure::new(FsError::with(ErrorCode::Unavailable, text), None, true);
    }
    let error = from_status(status);
    let move_on = match error.code() {
        ErrorCode::NotLeader | ErrorCode::ConnectionLost | ErrorCode::Timeout => true,
        _ => error.code() == ErrorCode::ShuttingDown,
    };
    Failure::new(error, leader_hint(status), move_on)
}

/// Whether the request was never sent, because there was no connection to send it on.
pub fn never_connected(status: &Status) -> bool {
    let mut source = std::error::Error::source(status);
    while let Some(err) = source {
        if err.is::<tonic::ConnectError>() {
            return true;
        }
        source = err.source();
    }
    false
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use ozone_proto::status;

    use super::*;

    fn client(members: &[&str]) -> LeaderClient {
        let members = members.iter().map(|m| m.to_string()).collect();
        LeaderClient::new(Channels::new(), members).unwrap()
    }

    /// Answers the n-th call (from 0) as told, and counts the calls.
    async fn calls<T>(
        client: &LeaderClient,
        retry: Retry,
        answer: impl Fn(usize) -> Result<T, Status> + Clone,
    ) -> (FsResult<T>, usize) {
        let count = Arc::new(AtomicUsize::new(0));
        let counter = count.clone();
        let result = client
            .call(retry, move |_| {
                let n = counter.fetch_add(1, Ordering::SeqCst);
                let reply = answer(n).map(Response::new);
                async move { reply }
            })
            .await;
        (result, count.load(Ordering::SeqCst))
    }

    #[tokio::test]
    async fn a_hint_is_followed_at_once_and_kept() {
        let client = client(&["a:1", "b:1"]);
        let (result, n) = calls(&client, Retry::within(Duration::from_secs(5)), |n| {
            if n == 0 { Err(status::not_leader("c:1")) } else { Ok(7) }
        })
        .await;
        assert_eq!((result.unwrap(), n), (7, 2));
        assert_eq!(client.current(), "c:1");
    }

    #[tokio::test]
    async fn final_errors_are_not_tried_again() {
        let client = client(&["a:1", "b:1"]);
        let gone = || Err::<(), _>(status::to_status(&ErrorCode::NotFound.into()));
        let (result, n) = calls(&client, Retry::FOREVER, move |_| gone()).await;
        assert_eq!((result.unwrap_err().code(), n), (ErrorCode::NotFound, 1));
        assert_eq!(client.current(), "a:1");
    }

    #[tokio::test]
    async fn an_unknown_fate_is_tried_again_only_where_that_is_harmless() {
        let lost = |n| if n == 0 { Err(Status::unavailable("gone")) } else { Ok(()) };
        let once = Retry { idempotent: false, ..Retry::FOREVER };
        let (result, n) = calls(&client(&["a:1"]), once, lost).await;
        assert_eq!((result.unwrap_err().code(), n), (ErrorCode::ConnectionLost, 1));
        let members = client(&["a:1", "b:1"]);
        let (result, n) = calls(&members, Retry::FOREVER, lost).await;
        assert!(result.is_ok() && n == 2);
        assert_eq!(members.current(), "b:1", "the next member was asked");
    }

    #[tokio::test]
    async fn nobody_there_is_an_answer_within_the_deadline() {
        let client = client(&["127.0.0.1:1"]);
        let begun = Instant::now();
        let result = client
            .call(Retry::within(Duration::from_millis(300)), |channel| async move {
                let mut metad =
                    ozone_proto::metad::metad_admin_client::MetadAdminClient::new(channel);
                metad.status(ozone_proto::metad::StatusRequest {}).await
            })
            .await;
        let err = result.unwrap_err();
        assert_eq!(err.code(), ErrorCode::Unavailable, "nothing was sent: {err}");
        assert!(err.detail().contains("127.0.0.1:1"));
        assert!(begun.elapsed() < Duration::from_secs(3));
    }
}
