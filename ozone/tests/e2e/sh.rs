//! `ozone sh`: Ozone's words, output and exit statuses, and keys that are files.

use std::ffi::OsStr;
use std::fs;
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use crate::harness::{Cluster, Mount, await_some, ozone, run, shell};

/// What a command says.
#[derive(Debug, PartialEq, Eq)]
struct Said {
    status: i32,
    out: String,
    err: String,
}

impl From<Output> for Said {
    fn from(output: Output) -> Self {
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Said {
            status: output.status.code().unwrap(),
            out: text(output.stdout),
            err: text(output.stderr),
        }
    }
}

fn sh(cluster: &Cluster, words: &[&str]) -> Said {
    cluster.ozone().arg("sh").args(words).output().unwrap().into()
}

/// A command that says nothing.
#[track_caller]
pub fn quiet(cluster: &Cluster, words: &[&str]) {
    let nothing = Said { status: 0, out: String::new(), err: String::new() };
    assert_eq!(sh(cluster, words), nothing, "{words:?}");
}

/// The output of a command that succeeds.
#[track_caller]
pub fn shown(cluster: &Cluster, words: &[&str]) -> String {
    let said = sh(cluster, words);
    assert_eq!((said.status, &said.err[..]), (0, ""), "{words:?}");
    said.out
}

/// The first word of the error of a command that is refused.
#[track_caller]
pub fn refused(cluster: &Cluster, words: &[&str]) -> String {
    let said = sh(cluster, words);
    assert_eq!((said.status, &said.out[..]), (255, ""), "{words:?}: {}", said.err);
    assert!(said.err.trim_end().contains(' '), "{words:?}: {}", said.err);
    said.err.split(' ').next().unwrap().to_owned()
}

/// `text` with every time replaced by `T`, which it must look like.
fn without_times(text: &str) -> String {
    let mut lines = Vec::new();
    for line in text.lines() {
        match line.split_once("Time\" : \"") {
            Some((field, rest)) => {
                let (time, end) = rest.split_once('"').unwrap();
                let digits: String =
                    time.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
                assert!(
                    ["0000-00-00T00:00:00.000Z", "0000-00-00T00:00:00Z"].contains(&&digits[..]),
                    "{time}"
                );
                lines.push(format!("{field}Time\" : \"T\"{end}"));
            }
            None => lines.push(line.to_owned()),
        }
    }
    lines.join("\n")
}

fn user() -> String {
    String::from_utf8(run(Command::new("id").arg("-un")).stdout).unwrap().trim().to_owned()
}

/// A field's value, as it is written.
pub fn field<'a>(json: &'a str, name: &str) -> &'a str {
    let key = format!("\"{name}\" : ");
    let (_, rest) = json.split_once(&key).unwrap_or_else(|| panic!("no {name} in {json}"));
    rest.split(['\n', ',']).next().unwrap()
}

/// The names in a listing.
fn names(json: &str) -> Vec<&str> {
    json.lines().filter_map(name_of).collect()
}

fn name_of(line: &str) -> Option<&str> {
    line.trim_start().strip_prefix("\"name\" : \"")?.split('"').next()
}

#[test]
fn volumes() {
    let cluster = Cluster::start();
    let me = user();
    let expected = format!(
        r#"{{
  "metadata" : {{ }},
  "name" : "vol1",
  "admin" : "{me}",
  "owner" : "{me}",
  "quotaInBytes" : -1,
  "quotaInNamespace" : -1,
  "usedNamespace" : 1,
  "creationTime" : "T",
  "modificationTime" : "T",
  "acls" : [ ],
  "refCount" : 0
}}"#
    );
    let info = |name: &str| shown(&cluster, &["volume", "info", name]);
    assert_eq!(without_times(&info("/vol1")), expected);
    let at = format!("o3://{}/vol1", cluster.metad_address());
    let there: Said = ozone().args(["sh", "volume", "info", &at]).output().unwrap().into();
    assert_eq!(without_times(&there.out), expected, "the address says where to ask");

    quiet(&cluster, &["volume", "create", "vol2", "-u", "alice", "--quota", "10GB"]);
    let list = |words: &[&str]| shown(&cluster, &[&["volume", "list"], words].concat());
    assert_eq!(names(&list(&["/"])), ["vol1"], "one's own");
    assert_eq!(names(&list(&["/", "-u", "alice"])), ["vol2"]);
    assert_eq!(list(&["--user", "nobody"]), "[ ]\n");
    quiet(&cluster, &["volume", "create", "/vol3", "--namespace-quota", "2"]);
    assert_eq!(names(&list(&["-a"])), ["vol1", "vol2", "vol3"]);
    assert_eq!(names(&list(&["-l", "1"])), ["vol1"]);
    assert_eq!(names(&list(&["-a", "-s", "vol1", "-p", "vol"])), ["vol2", "vol3"]);
    let all = list(&["-a"]);
    assert!(all.starts_with("[ {\n  \"metadata\" : { },\n  \"name\" : \"vol1\",\n"), "{all}");
    assert!(all.contains("\n}, {\n") && all.ends_with("\n} ]\n"), "{all}");

    assert_eq!(field(&info("vol2"), "quotaInBytes"), "10737418240");
    quiet(&cluster, &["volume", "setquota", "vol2", "--space-quota=5TB", "--namespace-quota=7"]);
    let two = info("vol2");
    assert_eq!(field(&two, "quotaInBytes"), "5497558138880");
    assert_eq!((field(&two, "quotaInNamespace"), field(&two, "owner")), ("7", "\"alice\""));
    assert_eq!(field(&two, "admin"), format!("\"{me}\""));
    quiet(&cluster, &["volume", "clrquota", "vol2", "--space-quota"]);
    let two = info("vol2");
    assert_eq!((field(&two, "quotaInBytes"), field(&two, "quotaInNamespace")), ("-1", "7"));
    let updated = shown(&cluster, &["volume", "update", "vol2", "--user", "bob"]);
    assert_eq!(field(&updated, "owner"), "\"bob\"");
    assert_eq!(updated, info("vol2"));

    assert_eq!(refused(&cluster, &["volume", "info", "none"]), "VOLUME_NOT_FOUND");
    assert_eq!(refused(&cluster, &["volume", "info", "/No_1"]), "INVALID_VOLUME_NAME");
    assert_eq!(refused(&cluster, &["volume", "create", "vol1"]), "VOLUME_ALREADY_EXISTS");
    assert_eq!(refused(&cluster, &["volume", "delete", "vol1"]), "VOLUME_NOT_EMPTY");
    let none = sh(&cluster, &["volume", "setquota", "vol2"]);
    assert_eq!(none.err, "At least one of the quota set flag is required.\n");
    assert_eq!(none.status, 255);
    let zero = sh(&cluster, &["volume", "setquota", "vol2", "--quota", "0"]);
    assert_eq!((zero.status, &zero.err[..]), (255, "Invalid value for space quota: 0\n"));
    for usage in [
        &["volume", "info"][..],
        &["volume", "info", "/vol1/bucket1"],
        &["volume", "info", "s3://host/vol1"],
        &["volume", "list", "-l", "0"],
        &["volume", "list", "-a", "-l", "1"],
        &["volume", "explode", "vol1"],
    ] {
        assert_eq!(sh(&cluster, usage).status, 2, "{usage:?}");
    }
    assert_eq!(shown(&cluster, &["volume", "delete", "vol2"]), "Volume vol2 is deleted\n");
    assert_eq!(names(&list(&["-a"])), ["vol1", "vol3"]);
}

#[test]
fn buckets() {
    let cluster = Cluster::start();
    let me = user();
    let info = |name: &str| shown(&cluster, &["bucket", "info", name]);
    let expected = |name: &str, layout: &str, replication: &str| {
        format!(
            r#"{{
  "metadata" : {{ }},
  "volumeName" : "vol1",
  "name" : "{name}",
  "storageType" : "DISK",
  "versioning" : false,
  "listCacheSize" : 1000,
  "usedBytes" : 0,
  "usedNamespace" : 0,
  "creationTime" : "T",
  "modificationTime" : "T",
  "sourcePathExist" : true,
  "quotaInBytes" : -1,
  "quotaInNamespace" : -1,
  "bucketLayout" : "{layout}",
  "owner" : "{me}",{replication}
  "link" : false
}}"#
        )
    };
    let fso = expected("bucket1", "FILE_SYSTEM_OPTIMIZED", "");
    assert_eq!(without_times(&info("vol1/bucket1")), fso);
    quiet(&cluster, &["bucket", "create", "vol1/old", "--layout", "legacy", "-r", "ONE"]);
    let one = r#"
  "replicationConfig" : {
    "replicationFactor" : "ONE",
    "requiredNodes" : 1,
    "minimumNodes" : 1,
    "replicationType" : "RATIS"
  },"#;
    assert_eq!(without_times(&info("vol1/old")), expected("old", "LEGACY", one));
    let list = |words: &[&str]| shown(&cluster, &[&["bucket", "list"], words].concat());
    assert_eq!(names(&list(&["vol1"])), ["bucket1", "old"]);
    assert_eq!(names(&list(&["vol1", "-p", "o"])), ["old"]);
    assert_eq!(names(&list(&["vol1", "-s", "bucket1", "-l", "5"])), ["old"]);
    assert!(without_times(&list(&["vol1"])).starts_with(&format!("[ {fso}, {{\n")));

    let updated = shown(&cluster, &["bucket", "update", "vol1/old", "-u", "carol"]);
    assert_eq!(field(&updated, "owner"), "\"carol\"");
    quiet(&cluster, &["bucket", "setquota", "vol1/old", "--quota", "3MB"]);
    assert_eq!(field(&info("vol1/old"), "quotaInBytes"), "3145728");
    assert_eq!(refused(&cluster, &["volume", "setquota", "vol1", "--quota=1GB"]), "QUOTA_ERROR");
    quiet(&cluster, &["bucket", "setquota", "vol1/bucket1", "--quota", "1GB"]);
    let small = ["volume", "setquota", "vol1", "--quota=1GB"];
    assert_eq!(refused(&cluster, &small), "QUOTA_EXCEEDED");
    quiet(&cluster, &["volume", "setquota", "vol1", "--quota=2GB", "--namespace-quota=2"]);
    let large = ["bucket", "setquota", "vol1/old", "--quota", "2GB"];
    assert_eq!(refused(&cluster, &large), "QUOTA_EXCEEDED");
    let clear = ["bucket", "clrquota", "vol1/old", "--space-quota"];
    assert_eq!(refused(&cluster, &clear), "QUOTA_ERROR");
    let third = ["bucket", "create", "vol1/third", "--quota", "1KB"];
    assert_eq!(refused(&cluster, &third), "QUOTA_EXCEEDED");
    quiet(&cluster, &["volume", "clrquota", "vol1", "--space-quota", "--namespace-quota"]);
    quiet(&cluster, &clear);
    assert_eq!(field(&info("vol1/old"), "quotaInBytes"), "-1");

    assert_eq!(refused(&cluster, &["bucket", "info", "vol1/none"]), "BUCKET_NOT_FOUND");
    assert_eq!(refused(&cluster, &["bucket", "info", "vol9/none"]), "VOLUME_NOT_FOUND");
    assert_eq!(refused(&cluster, &["bucket", "list", "vol9"]), "VOLUME_NOT_FOUND");
    assert_eq!(refused(&cluster, &["bucket", "create", "vol1/A"]), "INVALID_BUCKET_NAME");
    assert_eq!(refused(&cluster, &["bucket", "create", "vol1/old"]), "BUCKET_ALREADY_EXISTS");
    let ec = ["bucket", "create", "vol1/new", "--type", "EC", "-r", "rs-3-2-1024k"];
    assert_eq!(refused(&cluster, &ec), "NOT_SUPPORTED_OPERATION");
    for usage in [
        &["bucket", "create", "vol1"][..],
        &["bucket", "create", "vol1/new", "--layout", "flat"],
        &["bucket", "create", "vol1/new", "--type", "CHAINED"],
        &["bucket", "create", "vol1/new", "--type", "EC"],
        &["bucket", "info", "vol1/bucket1/key"],
    ] {
        assert_eq!(sh(&cluster, usage).status, 2, "{usage:?}");
    }
    let legacy = Mount::new(&format!("{}:/vol1/old", cluster.metad_address()), "");
    fs::write(legacy.join("f"), "legacy").unwrap();
    assert_eq!(shown(&cluster, &["key", "cat", "vol1/old/f"]), "legacy");
}

#[test]
fn links() {
    let cluster = Cluster::start();
    let me = user();
    quiet(&cluster, &["volume", "create", "vol2"]);
    quiet(&cluster, &["bucket", "link", "/vol1/bucket1", "/vol2/link"]);
    let info = shown(&cluster, &["bucket", "info", "vol2/link"]);
    let expected = format!(
        r#"{{
  "volumeName" : "vol2",
  "name" : "link",
  "sourceVolume" : "vol1",
  "sourceBucket" : "bucket1",
  "creationTime" : "T",
  "modificationTime" : "T",
  "owner" : "{me}",
  "link" : true
}}"#
    );
    assert_eq!(without_times(&info), expected);
    let list = shown(&cluster, &["bucket", "list", "vol2"]);
    assert_eq!(without_times(&list), format!("[ {expected} ]"));
    let full = shown(&cluster, &["bucket", "update", "vol2/link"]);
    assert_eq!(field(&full, "sourcePathExist"), "true");

    let source = cluster.mount();
    let linked = Mount::new(&format!("{}:/vol2/link", cluster.metad_address()), "");
    fs::write(linked.join("f"), "through the link").unwrap();
    assert_eq!(fs::read_to_string(source.join("f")).unwrap(), "through the link");
    assert_eq!(shown(&cluster, &["key", "cat", "vol2/link/f"]), "through the link");
    let keys = shown(&cluster, &["key", "list", "vol2/link"]);
    assert_eq!((names(&keys), field(&keys, "bucketName")), (vec!["f"], "\"link\""));
    drop((source, linked));

    let quota = ["bucket", "setquota", "vol2/link", "--quota", "1GB"];
    assert_eq!(refused(&cluster, &quota), "NOT_SUPPORTED_OPERATION");
    quiet(&cluster, &["bucket", "link", "vol1/nothing", "vol2/dangling"]);
    let info = shown(&cluster, &["bucket", "info", "vol2/dangling"]);
    assert_eq!(field(&info, "sourcePathExist"), "false");
    assert_eq!(refused(&cluster, &["key", "list", "vol2/dangling"]), "BUCKET_NOT_FOUND");
    assert_eq!(refused(&cluster, &["key", "cat", "vol2/dangling/f"]), "BUCKET_NOT_FOUND");
    quiet(&cluster, &["bucket", "link", "vol2/ring1", "vol2/ring2"]);
    quiet(&cluster, &["bucket", "link", "vol2/ring2", "vol2/ring1"]);
    let ring = refused(&cluster, &["key", "list", "vol2/ring1"]);
    assert_eq!(ring, "DETECTED_LOOP_IN_BUCKET_LINKS");
    assert_eq!(names(&shown(&cluster, &["key", "list", "vol2"])), ["f"]);
    // Not even with -r does a link take its source with it.
    let gone = shown(&cluster, &["bucket", "delete", "-r", "-y", "vol2/link"]);
    assert_eq!(gone, "Bucket link is deleted\n");
    assert_eq!(shown(&cluster, &["key", "cat", "vol1/bucket1/f"]), "through the link");
}

#[test]
fn keys_are_files() {
    let cluster = Cluster::start();
    let mount = cluster.mount();
    let local = tempfile::tempdir().unwrap();
    let at = |name: &str| local.path().join(name).to_str().unwrap().to_owned();
    let text = "hello from the shell\n";
    fs::write(at("hello"), text).unwrap();

    quiet(&cluster, &["key", "put", "vol1/bucket1/a/b/hello", &at("hello")]);
    assert_eq!(fs::read_to_string(mount.join("a/b/hello")).unwrap(), text);
    let entries = fs::read_dir(mount.join("a/b")).unwrap().count();
    assert_eq!(entries, 1, "nothing else is left there");
    assert_eq!(shown(&cluster, &["key", "cat", "/vol1/bucket1/a//b/hello"]), text);

    // The other way round, and what is written behind.
    let mut open = fs::File::create(mount.join("log")).unwrap();
    open.write_all(b"one").unwrap();
    assert_eq!(shown(&cluster, &["key", "cat", "vol1/bucket1/log"]), "one");
    open.write_all(b"two").unwrap();
    let info = shown(&cluster, &["key", "info", "vol1/bucket1/log"]);
    assert_eq!(field(&info, "dataSize"), "6");
    open.write_all(b"three").unwrap();
    let list = shown(&cluster, &["key", "list", "vol1/bucket1", "-p", "lo"]);
    assert_eq!(field(&list, "dataSize"), "11");

    // Replacing is one step: who has the old one open goes on with it.
    let old = fs::File::open(mount.join("a/b/hello")).unwrap();
    fs::write(at("new"), "new").unwrap();
    quiet(&cluster, &["key", "put", "vol1/bucket1/a/b/hello", &at("new")]);
    assert_eq!(std::io::read_to_string(&old).unwrap(), text);
    assert_eq!(fs::read_to_string(mount.join("a/b/hello")).unwrap(), "new");
    let umask = 0o777 & !mode_of(Path::new(&at("new")));
    assert_eq!(mode_of(&mount.join("a/b/hello")), 0o666 & !umask);

    quiet(&cluster, &["key", "get", "vol1/bucket1/a/b/hello", &at("got")]);
    assert_eq!(fs::read_to_string(at("got")).unwrap(), "new");
    let again = sh(&cluster, &["key", "get", "vol1/bucket1/a/b/hello", &at("got")]);
    assert_eq!(again.status, 255);
    assert!(again.err.contains("exists. Download would overwrite"), "{}", again.err);
    quiet(&cluster, &["key", "get", "-f", "vol1/bucket1/log", &at("got")]);
    assert_eq!(fs::read_to_string(at("got")).unwrap(), "onetwothree");
    quiet(&cluster, &["key", "get", "vol1/bucket1/a/b/hello", &at("")]);
    assert_eq!(fs::read_to_string(at("a/b/hello")).unwrap(), "new");

    quiet(&cluster, &["key", "rename", "vol1/bucket1", "log", "a/log"]);
    assert_eq!(fs::read_to_string(mount.join("a/log")).unwrap(), "onetwothree");
    quiet(&cluster, &["key", "rename", "vol1/bucket1", "a/log", "a/b"]);
    assert_eq!(fs::read_to_string(mount.join("a/b/log")).unwrap(), "onetwothree", "into it");
    quiet(&cluster, &["key", "rename", "vol1/bucket1", "a", "c"]);
    quiet(&cluster, &["key", "cp", "vol1/bucket1", "c/b/log", "copies/log"]);
    assert_eq!(fs::read_to_string(mount.join("copies/log")).unwrap(), "onetwothree");
    quiet(&cluster, &["key", "delete", "vol1/bucket1/copies/log"]);
    assert!(!mount.join("copies/log").exists());
    quiet(&cluster, &["key", "delete", "vol1/bucket1/copies/"]);
    assert!(!mount.join("copies").exists());
}

fn mode_of(path: &Path) -> u32 {
    fs::metadata(path).unwrap().mode() & 0o777
}

#[test]
fn keys_that_are_refused() {
    let cluster = Cluster::start();
    let mount = cluster.mount();
    fs::create_dir_all(mount.join("dir/sub")).unwrap();
    fs::write(mount.join("file"), "kept").unwrap();
    fs::write(mount.join("other"), "kept").unwrap();
    let local = tempfile::tempdir().unwrap();
    let file = local.path().join("local").to_str().unwrap().to_owned();
    fs::write(&file, "new").unwrap();
    let refused = |words: &[&str]| refused(&cluster, &[&["key"], words].concat());
    for verb in ["cat", "info", "delete"] {
        assert_eq!(refused(&[verb, "vol1/bucket1/none"]), "KEY_NOT_FOUND", "{verb}");
        assert_eq!(refused(&[verb, "vol1/bucket1/file/x"]), "KEY_NOT_FOUND", "{verb}");
        assert_eq!(refused(&[verb, "vol1/none/key"]), "BUCKET_NOT_FOUND", "{verb}");
        assert_eq!(refused(&[verb, "vol1/bucket1/a/../b"]), "INVALID_KEY_NAME", "{verb}");
    }
    assert_eq!(refused(&["cat", "vol1/bucket1/dir"]), "NOT_A_FILE");
    assert_eq!(refused(&["put", "vol1/bucket1/dir", &file]), "NOT_A_FILE");
    assert_eq!(refused(&["put", "vol1/bucket1/file/x", &file]), "FILE_ALREADY_EXISTS");
    let one = ["put", "vol1/bucket1/x", &file, "--replication", "ONE"];
    assert_eq!(refused(&one), "NOT_SUPPORTED_OPERATION");
    let missing = sh(&cluster, &["key", "put", "vol1/bucket1/x", "/no/such/file"]);
    assert_eq!((missing.status, missing.out), (255, String::new()));
    assert!(missing.err.starts_with("/no/such/file: No such file"), "{}", missing.err);
    assert_eq!(refused(&["rename", "vol1/bucket1", "none", "x"]), "KEY_NOT_FOUND");
    assert_eq!(refused(&["rename", "vol1/bucket1", "file", "other"]), "KEY_ALREADY_EXISTS");
    assert_eq!(refused(&["rename", "vol1/bucket1", "file", "no/x"]), "KEY_RENAME_ERROR");
    assert_eq!(refused(&["rename", "vol1/bucket1", "dir", "dir/sub/x"]), "KEY_RENAME_ERROR");
    assert_eq!(refused(&["cp", "vol1/bucket1", "none", "x"]), "KEY_NOT_FOUND");
    assert_eq!(refused(&["delete", "vol1/bucket1/dir"]), "DIRECTORY_NOT_EMPTY");
    for usage in [
        &["key", "cat", "vol1/bucket1"][..],
        &["key", "cat", "vol1/bucket1/"],
        &["key", "put", "vol1/bucket1/x"],
        &["key", "list", "vol1/bucket1/key"],
    ] {
        assert_eq!(sh(&cluster, usage).status, 2, "{usage:?}");
    }
    let mut left: Vec<_> =
        fs::read_dir(mount.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    left.sort();
    assert_eq!(left, ["dir", "file", "other"].map(OsStr::new), "nothing was made or left behind");
    assert_eq!(fs::read_to_string(mount.join("file")).unwrap(), "kept");
}

#[test]
fn key_info_and_lists() {
    let cluster = Cluster::start();
    let mount = cluster.mount();
    let me = user();
    shell(mount.path(), "mkdir -p a/b a-b && touch a/b/c a.txt a-b/x z && printf 12345 > a/k");
    shell(mount.path(), "ln -s z link && sync .");
    let all = ["a-b/", "a-b/x", "a.txt", "a/", "a/b/", "a/b/c", "a/k", "z"];
    let list =
        |words: &[&str]| shown(&cluster, &[&["key", "list", "vol1/bucket1"], words].concat());
    assert_eq!(names(&list(&[])), all);
    assert_eq!(names(&list(&["-a", "-p", "a/"])), all[3..7]);
    assert_eq!(names(&list(&["-s", "a/", "-a"])), all[4..]);
    assert_eq!(names(&list(&["-s", "a/b/c", "-p", "a"])), ["a/k"]);
    let three = sh(&cluster, &["key", "ls", "vol1/bucket1", "-l", "3"]);
    assert_eq!(names(&three.out), all[..3]);
    let hint = "Listing first 3 entries of the result. Use --length (-l) to override max returned \
                keys.\n";
    assert_eq!((three.status, &three.err[..]), (0, hint));
    assert_eq!(list(&["-p", "none"]), "[ ]\n");
    let key = |indent: &str, name: &str, size: u32, details: &str, file: bool| {
        format!(
            r#"{{
  "volumeName" : "vol1",
  "bucketName" : "bucket1",
  "name" : "{name}",
  "owner" : "{me}",
  "dataSize" : {size},
  "creationTime" : "T",
  "modificationTime" : "T",
  "replicationConfig" : {{
    "replicationFactor" : "THREE",
    "requiredNodes" : 3,
    "minimumNodes" : 1,
    "replicationType" : "RATIS"
  }},
  "metadata" : {{ }},
  "tags" : {{ }},{details}
  "file" : {file}
}}{indent}"#
        )
    };
    let two = without_times(&list(&["-p", "a/", "-s", "a/b/"]));
    assert_eq!(
        two,
        format!("[ {}{} ]", key(", ", "a/b/c", 0, "", true), key("", "a/k", 5, "", true))
    );
    let info = without_times(&shown(&cluster, &["key", "info", "vol1/bucket1/a/k"]));
    let number = |name: &str| field(&info, name).to_owned();
    let details = format!(
        r#"
  "ozoneKeyLocations" : [ {{
    "containerID" : {},
    "localID" : {},
    "length" : 5,
    "offset" : {},
    "keyOffset" : 0
  }} ],
  "generation" : {},"#,
        number("containerID"),
        number("localID"),
        number("offset"),
        number("generation"),
    );
    assert_eq!(info, key("", "a/k", 5, &details, true));
    let empty = without_times(&shown(&cluster, &["key", "info", "vol1/bucket1/a/b"]));
    let generation = field(&empty, "generation").to_owned();
    let details = format!("\n  \"ozoneKeyLocations\" : [ ],\n  \"generation\" : {generation},");
    assert_eq!(empty, key("", "a/b/", 0, &details, false));
    assert_eq!(refused(&cluster, &["key", "info", "vol1/bucket1/link"]), "NOT_A_FILE");

    quiet(&cluster, &["bucket", "create", "vol1/second"]);
    let lists = shown(&cluster, &["key", "list", "vol1", "-p", "z"]);
    assert!(lists.ends_with("} ]\n[ ]\n"), "{lists}");
}

#[test]
fn keys_of_any_size() {
    let cluster = Cluster::start();
    let mount = cluster.mount();
    let local = tempfile::tempdir().unwrap();
    // Larger than what the command may keep in memory.
    shell(local.path(), "head -c 150000000 /dev/urandom > large && : > empty");
    let at = |name: &str| local.path().join(name).to_str().unwrap().to_owned();
    let put = |key: &str, file: &str| quiet(&cluster, &["key", "put", key, &at(file)]);
    put("vol1/bucket1/large", "large");
    put("vol1/bucket1/empty", "empty");
    shell(local.path(), &format!("cmp large {}", mount.join("large").display()));
    assert_eq!(fs::metadata(mount.join("empty")).unwrap().len(), 0);
    assert_eq!(shown(&cluster, &["key", "cat", "vol1/bucket1/empty"]), "");
    quiet(&cluster, &["key", "get", "vol1/bucket1/large", &at("got")]);
    shell(local.path(), "cmp large got");

    // A copy takes no space of its own, and is its own.
    let stored = || fs::metadata(mount.join("copy")).unwrap();
    quiet(&cluster, &["key", "cp", "vol1/bucket1", "large", "copy"]);
    assert_eq!(stored().len(), 150_000_000);
    let blocks = |key: &str| {
        let info = shown(&cluster, &["key", "info", &format!("vol1/bucket1/{key}")]);
        let lines = info.lines().filter(|line| line.contains("localID"));
        lines.map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(blocks("copy"), blocks("large"));
    quiet(&cluster, &["key", "delete", "vol1/bucket1/large"]);
    shell(local.path(), &format!("cmp large {}", mount.join("copy").display()));

    // Standard output that nobody reads is an error, and no panic.
    let mut cat = cluster.ozone();
    cat.args(["sh", "key", "cat", "vol1/bucket1/copy"]).stdout(Stdio::piped());
    let mut child = cat.stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let said = child.wait_with_output().unwrap();
    assert_eq!(said.status.code(), Some(1), "{}", String::from_utf8_lossy(&said.stderr));
}

#[test]
fn flat_keys() {
    let cluster = Cluster::start();
    let local = tempfile::tempdir().unwrap();
    let at = |name: &str| local.path().join(name).to_str().unwrap().to_owned();
    quiet(&cluster, &["bucket", "create", "vol1/flat", "--layout", "obs"]);
    let info = shown(&cluster, &["bucket", "info", "vol1/flat"]);
    assert_eq!(field(&info, "bucketLayout"), "\"OBJECT_STORE\"");
    quiet(&cluster, &["bucket", "link", "vol1/flat", "vol1/link"]);
    for name in ["flat", "link"] {
        let source = format!("{}:/vol1/{name}", cluster.metad_address());
        let said: Said =
            ozone().args(["mount", &source]).arg(local.path()).output().unwrap().into();
        let why = format!(
            "Bucket: {name} has layout: OBJECT_STORE, which does not support file system \
             semantics. Bucket Layout must be FILE_SYSTEM_OPTIMIZED or LEGACY."
        );
        assert!(said.err.contains(&why), "{}", said.err);
        assert_eq!(said.status, 32);
    }

    let long = "long/".repeat(120);
    let mut keys = ["/", ".", "..", "a", "a/", "a/../b", "a//b", "a/b", "a-b", "b.c", &long];
    keys.sort();
    for key in keys {
        fs::write(at("file"), format!("of {key}")).unwrap();
        quiet(&cluster, &["key", "put", &format!("vol1/flat/{key}"), &at("file")]);
    }
    let list = |words: &[&str]| shown(&cluster, &[&["key", "list", "vol1/flat"], words].concat());
    assert_eq!(names(&list(&[])), keys);
    assert_eq!(names(&list(&["-p", "a/", "-s", "a//"])), ["a//b", "a/b"]);
    assert!(!list(&[]).contains("\"file\" : false"));
    for key in keys {
        let cat = shown(&cluster, &["key", "cat", &format!("vol1/link/{key}")]);
        assert_eq!(cat, format!("of {key}"));
    }
    let info = shown(&cluster, &["key", "info", &format!("vol1/flat/{long}")]);
    assert_eq!((field(&info, "name"), field(&info, "dataSize")), (&*format!("\"{long}\""), "603"));

    quiet(&cluster, &["key", "cp", "vol1/flat", &long, "a/b"]);
    quiet(&cluster, &["key", "rename", "vol1/flat", &long, "x/y"]);
    assert_eq!(shown(&cluster, &["key", "cat", "vol1/flat/a/b"]), format!("of {long}"));
    assert_eq!(
        refused(&cluster, &["key", "rename", "vol1/flat", "a", "x/y"]),
        "KEY_ALREADY_EXISTS"
    );
    assert_eq!(refused(&cluster, &["key", "cat", "vol1/flat/x"]), "KEY_NOT_FOUND");
    let used = |bucket: &str| {
        field(&shown(&cluster, &["bucket", "info", bucket]), "usedNamespace").to_owned()
    };
    assert_eq!(used("vol1/flat"), "11", "what the long key was written in is gone");
    quiet(&cluster, &["key", "get", "vol1/flat/x/y", &at("")]);
    assert_eq!(fs::read_to_string(at("x/y")).unwrap(), format!("of {long}"));
    assert_eq!(refused(&cluster, &["key", "get", "vol1/flat/a/../b", &at("")]), "INVALID_KEY_NAME");
    quiet(&cluster, &["key", "delete", "vol1/flat/a/"]);
    assert_eq!(names(&list(&["-p", "a/"])), ["a/../b", "a//b", "a/b"]);
    assert_eq!(refused(&cluster, &["bucket", "delete", "vol1/flat"]), "BUCKET_NOT_EMPTY");
    shown(&cluster, &["bucket", "delete", "-r", "-y", "vol1/flat"]);
}

#[test]
fn an_interrupted_put_leaves_nothing() {
    let cluster = Cluster::start();
    let mount = cluster.mount();
    fs::write(mount.join("key"), "before").unwrap();
    let fifo = mount.path().with_extension("fifo");
    shell(Path::new("/"), &format!("mkfifo {}", fifo.display()));
    let mut put = cluster.ozone();
    put.args(["sh", "key", "put", "vol1/bucket1/key"]).arg(&fifo);
    let child = put.spawn().unwrap();
    let mut writer = fs::File::options().write(true).open(&fifo).unwrap();
    writer.write_all(&[7; 3 << 20]).unwrap();
    await_some("the unfinished file", || fs::read_dir(mount.path()).unwrap().nth(1).map(drop));
    assert_eq!(fs::read_to_string(mount.join("key")).unwrap(), "before");
    run(Command::new("kill").args(["-INT", &child.id().to_string()]));
    // The pipe stays open: its end would be the key's, and might be seen before the signal.
    let said = child.wait_with_output().unwrap();
    drop(writer);
    fs::remove_file(&fifo).unwrap();
    assert_eq!(said.status.code(), Some(130));
    assert_eq!(fs::read_dir(mount.path()).unwrap().count(), 1);
    assert_eq!(fs::read_to_string(mount.join("key")).unwrap(), "before");
}

#[test]
fn buckets_are_deleted_with_all_that_is_in_them() {
    let cluster = Cluster::start();
    let mount = cluster.mount();
    shell(mount.path(), "mkdir -p a/b/c d && touch a/{1..50} a/b/c/{1..50} d/x && ln -s a link");
    assert_eq!(refused(&cluster, &["bucket", "delete", "vol1/bucket1"]), "BUCKET_NOT_EMPTY");
    let answer = |text: &str| -> Said {
        let mut command = cluster.ozone();
        command.args(["sh", "bucket", "delete", "-r", "vol1/bucket1"]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
        child.wait_with_output().unwrap().into()
    };
    let question = "This command will delete bucket recursively.\n\
        There is no recovery option after using this command, and deleted keys won't move to \
        trash.\nEnter 'yes' to proceed': ";
    for no in ["no\n", "", "y\n"] {
        let said = answer(no);
        let out = format!("{question}Operation cancelled.\n");
        assert_eq!(said, Said { status: 0, out, err: String::new() });
    }
    assert!(mount.join("a/b/c/50").exists());
    let said = answer("yes\n");
    let out = format!("{question}Bucket bucket1 is deleted\n");
    assert_eq!(said, Said { status: 0, out, err: String::new() });
    assert_eq!(refused(&cluster, &["bucket", "info", "vol1/bucket1"]), "BUCKET_NOT_FOUND");
    drop(mount);

    quiet(&cluster, &["bucket", "create", "vol1/one"]);
    quiet(&cluster, &["bucket", "create", "vol1/two"]);
    quiet(&cluster, &["bucket", "link", "vol1/one", "vol1/link"]);
    quiet(&cluster, &["key", "put", "vol1/two/x/y", "/etc/passwd"]);
    let gone = shown(&cluster, &["volume", "delete", "-r", "-y", "vol1"]);
    assert_eq!(gone, "Volume vol1 is deleted\n");
    assert_eq!(shown(&cluster, &["volume", "list", "-a"]), "[ ]\n");
}

#[test]
fn shells_complete_words() {
    let script =
        |shell: &str| -> Said { ozone().args(["completion", shell]).output().unwrap().into() };
    for (known, word) in [("bash", "complete -F"), ("zsh", "#compdef ozone"), ("fish", "setquota")]
    {
        let said = script(known);
        assert_eq!((said.status, &said.err[..]), (0, ""));
        assert!(said.out.contains(word), "{known}");
    }
    assert_eq!(script("cmd").status, 2);
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("script"), script("bash").out).unwrap();
    shell(dir.path(), "bash -n script");
}
