//! A state machine that would notice everything: it keeps what it was told, in order, per key.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use ozone_platform::Disk;
use ozone_raftkit::{Group, GroupConfig, Read, StateMachine, TableId, Txn};
use ozone_rpc::Channels;
use ozone_types::{FsResult, RaftNodeId};

const ROWS: TableId = 1;

/// `key=word` appends a word to the key's row and answers the row; `!` fails.
pub struct Words;

impl StateMachine for Words {
    const TABLES: &'static [(TableId, &'static str)] = &[(ROWS, "words")];

    fn apply(&self, txn: &mut Txn<'_>, command: &[u8]) -> io::Result<Vec<u8>> {
        if command == b"!" {
            return Err(io::Error::other("told to fail"));
        }
        if command == b"?" {
            panic!("told to panic");
        }
        let at = command.iter().position(|&b| b == b'=').unwrap();
        let (key, word) = (&command[..at], &command[at + 1..]);
        let mut row = txn.get(ROWS, key)?.unwrap_or_default();
        if !row.is_empty() {
            row.push(b' ');
        }
        row.extend_from_slice(word);
        txn.put(ROWS, key.to_vec(), row.clone());
        Ok(row)
    }
}

pub fn config(disk: Arc<dyn Disk>, dir: &Path, node: u64) -> GroupConfig {
    GroupConfig {
        name: "words".to_owned(),
        log_segment_bytes: 1 << 20,
        heartbeat: Duration::from_millis(50),
        election_timeout: (Duration::from_millis(300), Duration::from_millis(600)),
        ..GroupConfig::new(RaftNodeId(node), dir.to_owned(), disk)
    }
}

pub async fn start(config: GroupConfig) -> FsResult<Group<Words>> {
    Group::start(config, Words, Channels::new()).await
}

pub async fn say(group: &Group<Words>, key: &str, word: &str) -> FsResult<String> {
    let answer = group.propose(format!("{key}={word}").into_bytes()).await?;
    Ok(String::from_utf8(answer).unwrap())
}

pub fn row(group: &Group<Words>, key: &str) -> String {
    let row = group.view().get(ROWS, key.as_bytes()).unwrap();
    String::from_utf8(row.unwrap_or_default()).unwrap()
}

/// Waits until the node leads and has caught up with its own log.
pub async fn lead(group: &Group<Words>) -> u64 {
    let mut leadership = group.leadership();
    let led = tokio::time::timeout(Duration::from_secs(20), leadership.wait_for(Option::is_some));
    led.await.expect("a leader within 20 s").unwrap().unwrap()
}

/// Waits for something that no event announces.
pub async fn eventually(what: &str, condition: impl AsyncFn() -> bool) {
    let held = async {
        while !condition().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), held)
        .await
        .unwrap_or_else(|_| panic!("not within 20 s: {what}"));
}
