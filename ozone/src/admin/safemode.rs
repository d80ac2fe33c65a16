//! `ozone admin safemode`: whether new blocks are made, what is waited for, and an operator's will.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use clap::Subcommand;
use indicatif::ProgressBar;
use ozone_proto::containerd::{SafemodeKind, SafemodeReply, SafemodeRequest, SetSafemodeRequest};
use ozone_types::FsResult;
use serde::Serialize;

use super::servers::{ContainerAdmin, Servers, wait};
use super::show::{Format, duration};
use crate::cluster_client::block_on;
use crate::{Failure, Outcome};

/// Between two looks of `wait`.
const LOOK: Duration = Duration::from_millis(200);
/// A containerd that starts is asked again within the time of `wait`, not for longer.
const ATTEMPT: Duration = Duration::from_secs(1);
/// Containers that are named.
const NAMED: usize = 10;

#[derive(Subcommand)]
pub enum SafemodeCommand {
    /// Whether containerd is in safe mode, why, and how far it is.
    Status,
    /// Wait until it is out of safe mode; exit status 1 when time is up.
    Wait {
        /// How long.
        #[arg(short, long, value_name = "SECONDS", default_value_t = 30)]
        timeout: u64,
    },
    /// Hand out no new blocks until `exit`, or until another containerd leads.
    Enter,
    /// Leave safe mode at once, whatever is missing.
    Exit,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Status {
    in_safe_mode: bool,
    /// OFF, STARTING or ENTERED.
    mode: &'static str,
    since_millis: u64,
    rules: Vec<Rule>,
    /// The first of the containers whose blocks cannot be read yet.
    unreadable_containers: Vec<u64>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Rule {
    name: String,
    met: bool,
    have: u64,
    all: u64,
    text: String,
}

pub fn run(servers: &Servers, format: Format, command: &SafemodeCommand) -> Outcome {
    let status = match command {
        SafemodeCommand::Wait { timeout } => {
            return wait_for_end(servers, format, Duration::from_secs(*timeout));
        }
        SafemodeCommand::Status => wait(ask(&servers.containerd()?))?,
        SafemodeCommand::Enter => set(&servers.containerd()?, true)?,
        SafemodeCommand::Exit => set(&servers.containerd()?, false)?,
    };
    format.show(&Status::from(status), screen)
}

async fn ask(admin: &ContainerAdmin) -> FsResult<SafemodeReply> {
    admin.call(|mut a| async move { a.safemode(SafemodeRequest {}).await }).await
}

fn set(admin: &ContainerAdmin, enter: bool) -> Result<SafemodeReply, Failure> {
    let request = SetSafemodeRequest { enter };
    wait(admin.call(|mut a| async move { a.set_safemode(request).await }))
}

fn wait_for_end(servers: &Servers, format: Format, timeout: Duration) -> Outcome {
    let admin = servers.containerd_within(ATTEMPT)?;
    let (begin, bar) = (Instant::now(), ProgressBar::new_spinner());
    let last = block_on(async {
        loop {
            let answer = ask(&admin).await;
            let off = matches!(&answer, Ok(reply) if reply.kind() == SafemodeKind::SafemodeOff);
            if off || begin.elapsed() >= timeout {
                return answer;
            }
            bar.set_message(match answer {
                Ok(reply) => waited_for(&Status::from(reply)),
                Err(err) => format!("containerd does not answer: {err}"),
            });
            bar.tick();
            tokio::time::sleep(LOOK.min(timeout.saturating_sub(begin.elapsed()))).await;
        }
    })?;
    bar.finish_and_clear();
    let late = |why: &str| Failure::new(1, format!("after {} s: {why}", timeout.as_secs()));
    let status = last.map_err(|err| late(&format!("containerd does not answer: {err}")))?;
    let status = Status::from(status);
    format.show(&status, screen)?;
    match status.in_safe_mode {
        true => Err(late("still in safe mode")),
        false => Ok(()),
    }
}

impl From<SafemodeReply> for Status {
    fn from(reply: SafemodeReply) -> Self {
        let mode = match reply.kind() {
            SafemodeKind::SafemodeOff => "OFF",
            SafemodeKind::SafemodeStarting => "STARTING",
            SafemodeKind::SafemodeEntered => "ENTERED",
        };
        let rules = reply.rules.into_iter().map(|r| Rule {
            name: r.name,
            met: r.met,
            have: r.have,
            all: r.all,
            text: r.text,
        });
        Status {
            in_safe_mode: mode != "OFF",
            mode,
            since_millis: reply.since_ms,
            rules: rules.collect(),
            unreadable_containers: reply.unreadable,
        }
    }
}

/// What keeps it in safe mode.
fn waited_for(status: &Status) -> String {
    if status.mode == "ENTERED" {
        return "an operator entered it".to_owned();
    }
    let unmet: Vec<&str> =
        status.rules.iter().filter(|r| !r.met).map(|r| r.text.as_str()).collect();
    unmet.join("; ")
}

fn screen(s: &Status) -> String {
    let since = duration(s.since_millis);
    let mut out = match s.mode {
        "OFF" => format!("safe mode is OFF, for {since}\n"),
        "ENTERED" => format!(
            "safe mode is ON, for {since}: an operator entered it\n\
             no new blocks are handed out until `ozone admin safemode exit`\n"
        ),
        _ => format!(
            "safe mode is ON, for {since}: containerd has started and does not know enough yet\n\
             no new blocks are handed out; it ends by itself, or by `ozone admin safemode exit`\n"
        ),
    };
    // Writing into a String cannot fail.
    for rule in &s.rules {
        let mark = if rule.met { "+" } else { "-" };
        let _ = writeln!(out, "  {mark} {}", rule.text);
    }
    let unreadable = &s.unreadable_containers;
    if !unreadable.is_empty() {
        let named: Vec<String> = unreadable.iter().take(NAMED).map(|id| format!("#{id}")).collect();
        let more = if unreadable.len() > NAMED { " …" } else { "" };
        let _ = writeln!(
            out,
            "! too few replicas are known of containers {}{more}: their blocks cannot be read yet. \
             Start the block servers that hold them: `ozone admin container info {}`",
            named.join(" "),
            unreadable[0]
        );
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use ozone_proto::containerd::SafemodeRule;

    #[test]
    fn the_screen_says_what_is_waited_for_and_what_cannot_be_read() {
        let rule = |met, text: &str| SafemodeRule { met, text: text.into(), ..Default::default() };
        let reply = SafemodeReply {
            kind: SafemodeKind::SafemodeStarting as i32,
            since_ms: 2000,
            rules: vec![rule(false, "1 of 3 servers"), rule(true, "all containers")],
            unreadable: (1..=12).collect(),
        };
        let status = Status::from(reply.clone());
        assert_eq!(waited_for(&status), "1 of 3 servers");
        let text = screen(&status);
        for part in ["ON, for 2 s", "- 1 of 3", "+ all", "#1 #2", "#10 …", "cannot be read yet"] {
            assert!(text.contains(part), "{part} is not in {text}");
        }
        let off = SafemodeReply { kind: 0, unreadable: Vec::new(), ..reply };
        assert!(screen(&off.into()).starts_with("safe mode is OFF"));
    }
}
