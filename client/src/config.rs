//! What a mount is told about its cluster and its limits.

use std::path::PathBuf;
use std::time::Duration;

use crate::api::AccessTimes;

/// Configuration of one client.
#[derive(Clone, Debug)]
pub struct ClientConfig {
    /// RPC addresses of metad, `host:port`; any of them answers who leads.
    pub metad: Vec<String>,
    pub volume: String,
    pub bucket: String,
    /// Path within the bucket that becomes the root, without leading slash; empty: the bucket's root.
    pub subdirectory: String,
    /// Told to metad for people who look at its sessions.
    pub mountpoint: String,
    /// Ceiling in bytes of dirty data, data in flight and cached data together. What is remembered of
    /// names and attributes may take a quarter of it more.
    pub memory: u64,
    /// Which reads are seen in the access time.
    pub access_times: AccessTimes,
    /// The bucket may be one of flat keys ([`crate::Client::flat_keys`]), which is no filesystem; it is
    /// refused with NOT_SUPPORTED_OPERATION otherwise.
    pub keys: bool,
    /// Refuse every change with READ_ONLY.
    pub read_only: bool,
    /// How long [`crate::Client::connect`] tries before it gives up.
    pub connect_timeout: Duration,
    /// Longest time that written data stays only in memory before it is on its way.
    pub write_behind: Duration,
    /// A block server that acknowledges nothing for this long has failed.
    pub append_timeout: Duration,
    /// A read that takes longer is sent to another replica as well.
    pub read_hedge: Duration,
    /// Where the locks of live sessions lie; `None`: `/run/ozone/sessions` for root,
    /// `$XDG_RUNTIME_DIR/ozone` otherwise.
    pub session_dir: Option<PathBuf>,
}

impl Default for ClientConfig {
    fn default() -> Self {
        ClientConfig {
            metad: Vec::new(),
            volume: String::new(),
            bucket: String::new(),
            subdirectory: String::new(),
            mountpoint: String::new(),
            memory: 256 << 20,
            access_times: AccessTimes::default(),
            keys: false,
            read_only: false,
            connect_timeout: Duration::from_secs(30),
            write_behind: Duration::from_millis(600),
            append_timeout: Duration::from_secs(5),
            read_hedge: Duration::from_secs(1),
            session_dir: None,
        }
    }
}
