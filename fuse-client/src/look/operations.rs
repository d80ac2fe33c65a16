//! The operations of a mount by name, and what is counted of each.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use ozone_client::latency::Latency;
use ozone_client::look::{Timings, counters, histograms};
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

use super::Outcome;

macro_rules! operations {
    ($($variant:ident $name:literal,)*) => {
        /// What the kernel asks of a mount.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Operation { $($variant,)* }

        impl Operation {
            pub const ALL: &[Operation] = &[$(Operation::$variant,)*];

            /// As the system calls and this workspace's files are called.
            pub fn name(self) -> &'static str {
                match self { $(Operation::$variant => $name,)* }
            }
        }
    };
}

operations! {
    Lookup "lookup",
    Mknod "mknod",
    Mkdir "mkdir",
    Unlink "unlink",
    Rmdir "rmdir",
    Symlink "symlink",
    Rename "rename",
    Link "link",
    Opendir "opendir",
    Readdir "readdir",
    Readdirplus "readdirplus",
    Releasedir "releasedir",
    Fsyncdir "fsyncdir",
    Getattr "getattr",
    Setattr "setattr",
    Readlink "readlink",
    Statfs "statfs",
    Open "open",
    Create "create",
    Read "read",
    Write "write",
    Flush "flush",
    Fsync "fsync",
    Release "release",
    Fallocate "fallocate",
    Lseek "lseek",
    CopyFileRange "copy_file_range",
    Getlk "getlk",
    Setlk "setlk",
    Ioctl "ioctl",
    Setxattr "setxattr",
    Getxattr "getxattr",
    Listxattr "listxattr",
    Removexattr "removexattr",
}

/// The counts of one mount.
pub(super) struct Operations {
    latencies: [Latency; Operation::ALL.len()],
    read: AtomicU64,
    written: AtomicU64,
}

impl Default for Operations {
    fn default() -> Self {
        Operations {
            latencies: std::array::from_fn(|_| Latency::default()),
            read: AtomicU64::new(0),
            written: AtomicU64::new(0),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OperationLabel {
    operation: String,
}

impl Operations {
    pub fn of(&self, operation: Operation) -> &Latency {
        &self.latencies[operation as usize]
    }

    pub fn answered(&self, operation: Operation, took: Duration, outcome: Outcome) {
        self.of(operation).note(took, outcome.errno != 0);
        let bytes = match operation {
            Operation::Read => &self.read,
            Operation::Write | Operation::CopyFileRange => &self.written,
            _ => return,
        };
        bytes.fetch_add(outcome.bytes, Ordering::Relaxed);
    }

    /// Those that were ever asked for.
    pub fn timings(&self) -> Timings {
        let timings = Operation::ALL.iter().map(|op| (op.name().to_owned(), self.of(*op).timing()));
        timings.filter(|(_, timing)| timing.count() > 0 || timing.running > 0).collect()
    }

    pub fn bytes_read(&self) -> u64 {
        self.read.load(Ordering::Relaxed)
    }

    pub fn bytes_written(&self) -> u64 {
        self.written.load(Ordering::Relaxed)
    }

    /// For Prometheus.
    pub fn encode(&self, encoder: &mut DescriptorEncoder<'_>) -> std::fmt::Result {
        let timings = self.timings();
        let label = |operation| OperationLabel { operation };
        let what = ("ozone_mount_operation_seconds", "Time to answer an operation of the kernel");
        histograms(encoder, what, &timings, label)?;
        let errors = timings.iter().map(|(name, timing)| (label(name.clone()), timing.errors));
        let what = ("ozone_mount_operation_errors", "Operations answered with an error");
        counters(encoder, what, errors)?;
        let (name, help) = ("ozone_mount_operations_waiting", "Operations that are not answered");
        let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
        for (name, timing) in timings {
            let waiting = ConstGauge::new(timing.running as i64);
            waiting.encode(family.encode_family(&label(name))?)?;
        }
        for (name, help, value) in [
            ("ozone_mount_read_bytes", "Bytes that programs read", self.bytes_read()),
            ("ozone_mount_written_bytes", "Bytes that programs wrote", self.bytes_written()),
        ] {
            let descriptor = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
            ConstCounter::new(value).encode(descriptor)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_has_its_place() {
        for (n, operation) in Operation::ALL.iter().enumerate() {
            assert_eq!(*operation as usize, n, "{}", operation.name());
        }
    }

    #[test]
    fn bytes_are_those_of_data() {
        let operations = Operations::default();
        let took = Duration::from_micros(5);
        operations.answered(Operation::Read, took, Outcome::bytes(10));
        operations.answered(Operation::Write, took, Outcome::bytes(3));
        operations.answered(Operation::CopyFileRange, took, Outcome::bytes(4));
        operations.answered(Operation::Lookup, took, Outcome::error(libc::ENOENT));
        assert_eq!((operations.bytes_read(), operations.bytes_written()), (10, 7));
        let timings = operations.timings();
        let names: Vec<&str> = timings.keys().map(String::as_str).collect();
        assert_eq!(names, ["copy_file_range", "lookup", "read", "write"]);
        assert_eq!((timings["lookup"].errors, timings["read"].errors), (1, 0));
    }
}
