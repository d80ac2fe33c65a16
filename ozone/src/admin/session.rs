//! `ozone admin session`: the clients' sessions, and the end of one.

use clap::Subcommand;
use ozone_platform::real_clock;
use ozone_proto::metad::{
    EvictSessionRequest, ListSessionsReply, ListSessionsRequest, SessionInfo,
};
use ozone_types::FsResult;
use serde::Serialize;

use super::servers::{Servers, wait};
use super::show::{Format, Table, duration};
use crate::Outcome;
use crate::cluster_client::Admin;

#[derive(Subcommand)]
pub enum SessionCommand {
    /// Every session with what it holds.
    List,
    /// End sessions now: their locks, leases and open files go, and what their clients have not
    /// flushed is lost. A client that still runs begins a new session.
    Evict {
        #[arg(required = true, value_name = "ID")]
        session: Vec<u64>,
    },
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Session {
    id: u64,
    host: String,
    pid: u32,
    mountpoint: String,
    /// Its stream stands.
    connected: bool,
    /// It has said to this leader what it holds.
    claimed: bool,
    silent_millis: u64,
    /// Milliseconds since 1970.
    opened_millis: Option<i64>,
    open_files: u64,
    leases: u64,
    locks: u64,
}

pub fn run(servers: &Servers, format: Format, command: &SessionCommand) -> Outcome {
    let admin = servers.metad()?;
    match command {
        SessionCommand::List => {
            let sessions: Vec<Session> =
                wait(fetch(&admin))?.sessions.into_iter().map(Session::from).collect();
            let now = real_clock().wall().secs.saturating_mul(1000);
            format.show(&sessions, |sessions| table(sessions, now))
        }
        SessionCommand::Evict { session } => {
            // Of one runtime: a connection ends with the one that it was made on.
            wait(async {
                for &session in session {
                    let request = EvictSessionRequest { session };
                    admin.call(|mut a| async move { a.evict_session(request).await }).await?;
                }
                Ok(())
            })
        }
    }
}

/// All sessions.
pub async fn fetch(admin: &Admin) -> FsResult<ListSessionsReply> {
    admin.call(|mut a| async move { a.list_sessions(ListSessionsRequest {}).await }).await
}

impl From<SessionInfo> for Session {
    fn from(s: SessionInfo) -> Self {
        Session {
            id: s.id,
            host: s.host,
            pid: s.pid,
            mountpoint: s.mountpoint,
            connected: s.connected,
            claimed: s.claimed,
            silent_millis: s.silent_ms,
            opened_millis: s
                .opened
                .map(|at| at.secs.saturating_mul(1000) + i64::from(at.nanos / 1_000_000)),
            open_files: s.opens,
            leases: s.leases,
            locks: s.locks,
        }
    }
}

fn table(sessions: &[Session], now_millis: i64) -> String {
    let columns = [
        ">session",
        "host",
        ">pid",
        "mountpoint",
        "age",
        "last heard",
        ">open",
        ">leases",
        ">locks",
        "state",
    ];
    let mut table = Table::new(&columns);
    for s in sessions {
        let age = s.opened_millis.and_then(|at| u64::try_from(now_millis - at).ok());
        table.row([
            s.id.to_string(),
            s.host.clone(),
            s.pid.to_string(),
            s.mountpoint.clone(),
            age.map_or_else(|| "-".to_owned(), duration),
            format!("{} ago", duration(s.silent_millis)),
            s.open_files.to_string(),
            s.leases.to_string(),
            s.locks.to_string(),
            state(s).to_owned(),
        ]);
    }
    table.render("no client has a session")
}

fn state(session: &Session) -> &'static str {
    match (session.connected, session.claimed) {
        (true, true) => "connected",
        (true, false) => "claiming what it holds",
        (false, _) => "not connected: ends when its lease time is over",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_silent_session_says_what_will_come_of_it() {
        let info = SessionInfo {
            id: 3,
            host: "h".into(),
            opened: Some(ozone_proto::common::Timestamp { secs: 100, nanos: 500_000_000 }),
            silent_ms: 4000,
            ..Default::default()
        };
        let text = table(&[info.into()], 161_500);
        assert!(text.contains("1 min 1 s") && text.contains("4 s ago"), "{text}");
        assert!(text.contains("ends when its lease time is over"), "{text}");
    }
}
