//! What the client counts; the only place where names of metrics are.

use std::collections::BTreeMap;

use prometheus_client::metrics::counter::Counter;

macro_rules! counters {
    ($($name:ident, $help:literal;)*) => {
        /// The client's counters.
        #[derive(Default)]
        pub struct Metrics { $(pub $name: Counter,)* }

        /// Their names, which `ozone_client_` comes before, and what they mean.
        pub const COUNTERS: &[(&str, &str)] = &[$((stringify!($name), $help),)*];

        impl Metrics {
            /// All of them by name.
            pub fn values(&self) -> BTreeMap<String, u64> {
                [$((stringify!($name).to_owned(), self.$name.get()),)*].into()
            }
        }
    };
}

counters! {
    batches, "Batches of changes sent to metad";
    entries, "Changes in those batches";
    appends, "Appends sent, each to all replicas";
    appended, "Bytes stored on all replicas";
    seals, "Blocks sealed because a replica failed";
    rewrites, "Commits repeated because a block was sealed short";
    reads, "Reads sent to block servers";
    reads_here, "Of them those that the thread that asked waited for itself";
    fetched, "Bytes that block servers sent for them";
    read_hedges, "Reads sent to another replica because one was slow";
    read_rounds_failed, "Reads that no replica of a block could serve at once";
    cache_hits, "Reads served by the cache";
    cache_misses, "Reads that had to be fetched";
    recalls, "Leases that metad asked back";
    lost, "Bytes written by programs that could not be stored";
    locks_here, "Questions about locks answered without metad";
    locks_asked, "Questions about locks that waited, or went to metad";
}
