//! Mounts of `/` and of `/vol1`: buckets and volumes as directories.

use std::collections::BTreeSet;
use std::ffi::CString;
use std::fs::{self, File};
use std::io::{Read, Seek, Write};
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::harness::sides::{as_user, need};
use crate::harness::{Cluster, Mount, Role, await_some, ozone, run, shell};
use crate::sh::{quiet, refused};

impl Cluster {
    /// A mount of all volumes (`/`) or of one.
    fn forest(&self, path: &str, options: &str) -> Mount {
        Mount::new(&format!("{}:{path}", self.metad_address()), options)
    }

    /// The mountpoints of all sessions, with the buckets that they are in.
    fn sessions(&self) -> Vec<String> {
        let output = run(self.ozone().args(["admin", "--json", "session", "list"]));
        let list: Value = serde_json::from_slice(&output.stdout).unwrap();
        let at = |session: &Value| session["mountpoint"].as_str().unwrap().to_owned();
        let mut at: Vec<String> = list.as_array().unwrap().iter().map(at).collect();
        at.sort();
        at
    }
}

fn names(dir: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(dir).unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

fn set<const N: usize>(names: [&str; N]) -> BTreeSet<String> {
    names.map(str::to_owned).into()
}

/// The errno of an operation that must fail.
#[track_caller]
fn errno<T>(result: std::io::Result<T>) -> i32 {
    match result {
        Ok(_) => panic!("it succeeded"),
        Err(err) => err.raw_os_error().unwrap(),
    }
}

#[test]
fn buckets_are_directories() {
    let cluster = Cluster::start();
    quiet(&cluster, &["bucket", "create", "/vol1/bucket2"]);
    quiet(&cluster, &["volume", "create", "/vol2"]);
    quiet(&cluster, &["bucket", "create", "/vol2/bucket3"]);
    let one = cluster.forest("/vol1", "");
    assert_eq!(names(one.path()), set(["bucket1", "bucket2"]));
    let all = cluster.forest("/", "");
    assert_eq!(names(all.path()), set(["vol1", "vol2"]));
    assert_eq!(names(&all.join("vol1")), set(["bucket1", "bucket2"]));
    shell(all.path(), "ls -lR . > /dev/null");

    // Seen in every mount that shows it.
    fs::write(one.join("bucket1/file"), "written").unwrap();
    assert_eq!(fs::read(all.join("vol1/bucket1/file")).unwrap(), b"written");
    let bucket = cluster.mount();
    assert_eq!(fs::read(bucket.join("file")).unwrap(), b"written");
    fs::write(bucket.join("file"), "anew").unwrap();
    assert_eq!(fs::read(all.join("vol1/bucket1/file")).unwrap(), b"anew");
    fs::write(all.join("vol2/bucket3/other"), "x").unwrap();
    assert_eq!(names(&all.join("vol2/bucket3")), set(["other"]));
}
