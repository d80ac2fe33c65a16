//! `ozone freon` on a cluster: what it writes is what it verifies, without a mount and with one, and what
//! is wrong is told.

use std::fs;
use std::process::{Command, Output};

use crate::harness::{Cluster, Role, await_some, ozone, run};

fn freon(cluster: &Cluster, words: &str) -> Command {
    let mut command = cluster.ozone();
    command.arg("freon").args(words.split_whitespace());
    command
}

/// A run that must be refused or fail; its exit status and all it says.
fn fails(command: &mut Command) -> (i32, String) {
    let output = command.output().unwrap();
    assert!(!output.status.success(), "{command:?}: {}", text(&output));
    (output.status.code().expect("an exit status"), text(&output))
}

fn text(output: &Output) -> String {
    let all = [&output.stdout[..], &output.stderr[..]].concat();
    String::from_utf8_lossy(&all).into_owned()
}

/// What a run with `--json` tells.
fn json(command: &mut Command) -> serde_json::Value {
    let output = run(command.arg("--json"));
    serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {}", text(&output)))
}

fn counts(view: &serde_json::Value) -> Vec<(String, u64)> {
    let operations = view["operations"].as_array().unwrap();
    let count = |o: &serde_json::Value| {
        let name = o["operation"].as_str().unwrap().to_owned();
        (name, o["count"].as_u64().unwrap())
    };
    operations.iter().map(count).collect()
}

#[test]
fn keys_are_verified_without_a_mount_and_with_one() {
    let cluster = Cluster::start();
    let wrote = json(&mut freon(&cluster, "ockg -n 300 -t 4 -s 10KB -p run"));
    assert_eq!(counts(&wrote), [("key-create".to_owned(), 300)]);
    assert_eq!(wrote["operations"][0]["bytes"], 300 * 10_240);
    let times: Vec<f64> = ["min_us", "p50_us", "p90_us", "p99_us", "p999_us", "max_us"]
        .map(|name| wrote["operations"][0][name].as_f64().unwrap())
        .into();
    assert!(times.is_sorted() && times[0] > 0.0, "{times:?}");
    let read = json(&mut freon(&cluster, "ockv -n 300 -t 4 -p run --buffer 3000"));
    assert_eq!(counts(&read), [("key-validate".to_owned(), 300)]);

    // What one way writes, the other verifies.
    let mount = cluster.mount();
    let at = |words: &str| {
        let mut command = freon(&cluster, words);
        command.arg("--path").arg(mount.path());
        command
    };
    run(&mut at("dfsv -n 300 -t 4 -p run"));
    let wrote = json(&mut at("dfsg -n 200 -t 3 -s 5000 -p files"));
    assert_eq!(counts(&wrote), [("file-create".to_owned(), 200)]);
    run(&mut freon(&cluster, "ockv -n 200 -p files --size 5000"));
    assert_eq!(fs::read_dir(mount.join("files")).unwrap().count(), 200);
    // Again: the same bytes over the old ones; and shorter ones.
    run(&mut at("dfsg -n 200 -s 5000 -p files"));
    run(&mut at("dfsg -n 200 -s 100 -p files --sync HSYNC"));
    run(&mut at("dfsv -n 200 -p files --size 100"));

    altered_files_are_found(&cluster, &mount.join("run"));
}

fn altered_files_are_found(cluster: &Cluster, dir: &std::path::Path) {
    let check = |what: &str, told: &str| {
        let (status, text) = fails(&mut freon(cluster, "ockv -n 300 -p run -f"));
        assert_eq!(status, 1, "{what}");
        assert!(text.contains(told) && text.contains("Failures: "), "{what}: {text}");
        text
    };
    // A byte.
    let mut bytes = fs::read(dir.join("17")).unwrap();
    bytes[5000] ^= 1;
    fs::write(dir.join("17"), &bytes).unwrap();
    fs::File::open(dir.join("17")).unwrap().sync_all().unwrap();
    let text = check("a byte", "run/17: byte 5000 is 0x");
    assert!(text.contains("Successful executions: 299"), "{text}");
    // Two files swapped.
    fs::rename(dir.join("20"), dir.join("swap")).unwrap();
    fs::rename(dir.join("21"), dir.join("20")).unwrap();
    fs::rename(dir.join("swap"), dir.join("21")).unwrap();
    let text = check("swapped", "run/20: byte 0 is 0x");
    assert!(text.contains("Failures: 3"), "{text}");
    // One too short, one missing.
    fs::File::options().write(true).open(dir.join("30")).unwrap().set_len(4096).unwrap();
    check("short", "run/30: 4096 bytes, not 10240");
    fs::remove_file(dir.join("31")).unwrap();
    check("missing", "run/31: ");
    // Written by a run with another seed.
    let (_, text) = fails(&mut freon(cluster, "ockv -n 10 -p run --seed 9"));
    assert!(text.contains("byte 0 is") && text.contains("Failures: "), "{text}");
}

#[test]
fn several_clients_mixed_loads_and_names() {
    let cluster = Cluster::start();
    let load = |words: &str| run(&mut freon(&cluster, words));
    for spread in ["none", "directories", "buckets"] {
        let common = format!("-n 60 -t 6 --clients 3 --spread {spread} -p {spread}");
        let wrote = json(&mut freon(&cluster, &format!("ockg -s 3000 {common}")));
        assert_eq!(wrote["clients"], 3);
        load(&format!("ockv {common} --size 3000"));
    }
    run(cluster.ozone().args(["sh", "bucket", "info", "/vol1/bucket1-2"]));

    load("ockrw -n 50 --linear -R 50 --size 2000 -p mix");
    let mixed = json(&mut freon(
        &cluster,
        "ockrw -n 400 -R 50 --size 2000 -p mix --percentage-read 50 --percentage-list 10",
    ));
    let mixed = counts(&mixed);
    let names: Vec<_> = mixed.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["key-list", "key-read", "key-write"]);
    assert_eq!(mixed.iter().map(|(_, count)| count).sum::<u64>(), 400);

    let mount = cluster.mount();
    for path in [None, Some(mount.path())] {
        let op = |words: &str| {
            let mut command = freon(&cluster, "ommg -n 40 -t 4 -p names");
            command.args(words.split(' '));
            command.args(path.iter().flat_map(|path| ["--path".as_ref(), path.as_os_str()]));
            json(&mut command)
        };
        for operation in [
            "CREATE_FILE",
            "LOOKUP_KEY",
            "OPEN_FILE",
            "STAT_FILE",
            "READ_KEY",
            "LIST_STATUS",
            "CREATE_DIR",
        ] {
            let view = op(&format!("--operation {operation}"));
            assert_eq!(counts(&view)[0].1, 40, "{operation}");
        }
        // Until each thread has had its turn: the quick ones would take all numbers.
        let mixed = "--operation MIXED --ops LOOKUP_FILE,LIST_STATUS --opsnum 3,1 --duration 2s";
        let view = op(mixed);
        assert_eq!(counts(&view).len(), 2);
        op("--operation LOOKUP_FILE --random");
        op("--operation RENAME_FILE");
        assert!(mount.join("names/0000000000000000039.renamed").exists());
        fs::remove_dir_all(mount.join("names")).unwrap();
        op("--operation CREATE_FILE --size 100");
        op("--operation DELETE_FILE");
        assert_eq!(fs::read_dir(mount.join("names")).unwrap().count(), 0);
        fs::remove_dir(mount.join("names")).unwrap();
    }
}

#[test]
fn bad_input_is_refused() {
    for words in ["freon ockg -t 0", "freon ockg -n 0", "freon ockg -s 10XB", "freon none"] {
        let (status, text) = fails(ozone().args(words.split(' ')));
        assert_eq!(status, 2, "{words}: {text}");
    }
    let (status, text) = fails(ozone().args(["freon", "dfsg", "--path", "/tmp"]));
    assert!(status == 2 && text.contains("/tmp is not a mount of Ozone FS"), "{text}");
    let (status, text) = fails(ozone().args(["freon", "dfsv", "-p", "x"]));
    assert!(status == 2 && text.contains("--path is needed"), "{text}");
    let (status, text) = fails(ozone().args(["freon", "ockv"]));
    assert!(status == 2 && text.contains("--prefix is needed"), "{text}");

    let cluster = Cluster::start();
    let (_, text) = fails(&mut freon(&cluster, "ockv -p x -b nosuch"));
    assert!(text.contains("BUCKET_NOT_FOUND"), "{text}");
    let (_, text) = fails(&mut freon(&cluster, "ockv -p nosuch"));
    assert!(text.contains("NOT_FOUND"), "{text}");
    let (status, text) = fails(&mut freon(&cluster, "ockg -t 3 --clients 4"));
    assert!(status == 2 && text.contains("4 clients need as many threads"), "{text}");

    // A bucket that becomes full: told, and no hang.
    let sh = |words: &str| run(cluster.ozone().arg("sh").args(words.split(' ')));
    sh("bucket create /vol1/small --space-quota 1MB");
    let (status, text) = fails(&mut freon(&cluster, "ockg -b small -n 2000 -s 100KB -p x"));
    assert!(status == 1 && text.contains("QUOTA_EXCEEDED"), "{text}");
    let (_, text) = fails(&mut freon(&cluster, "ockg -b small -n 30 -s 100KB -p y -f"));
    assert!(text.contains("QUOTA_EXCEEDED") && text.contains("Failures: "), "{text}");
}

#[test]
fn ctrl_c_ends_a_run_with_its_report() {
    let cluster = Cluster::start();
    let mut command = freon(&cluster, "ockg -n 1000000 -t 2 -s 100 -p long --json");
    let file = cluster.dir.path().join("out");
    command.stdout(fs::File::create(&file).unwrap());
    let mut child = command.spawn().unwrap();
    await_some("keys to be written", || {
        let listed =
            run(cluster.ozone().args(["sh", "key", "list", "/vol1/bucket1", "--prefix", "long/"]));
        text(&listed).contains("long/").then_some(())
    });
    let pid = nix::unistd::Pid::from_raw(child.id() as i32);
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130));
    let view: serde_json::Value = serde_json::from_slice(&fs::read(file).unwrap()).unwrap();
    assert_eq!((&view["interrupted"], &view["failed"]), (&true.into(), &0.into()));
    let done = view["succeeded"].as_u64().unwrap();
    assert!(done > 0 && done < 1_000_000);
    assert_eq!(counts(&view), [("key-create".to_owned(), done)]);
    // What it says to have done is there.
    let keys = done.min(20);
    run(&mut freon(&cluster, &format!("ockv -n {keys} -p long --size 100")));
}

#[test]
fn random_reads_are_verified() {
    let cluster = Cluster::start();
    run(&mut freon(&cluster, "ockg -n 4 -s 300KB -p big"));
    let read = json(&mut freon(&cluster, "ocrr --keys 4 -n 400 -t 4 -p big"));
    assert_eq!(counts(&read), [("open".to_owned(), 4), ("read".to_owned(), 400)]);
    assert_eq!(read["operations"][1]["bytes"], 400 * 4096);
    let mount = cluster.mount();
    let mut through = freon(&cluster, "ocrr --keys 4 -n 100 -p big -s 10000");
    run(through.arg("--path").arg(mount.path()));
    // More clients than keys: all read in all of them.
    run(&mut freon(&cluster, "ocrr --keys 4 -n 100 -p big --clients 6 --spread none"));
    let (status, text) = fails(&mut freon(&cluster, "ocrr --keys 4 -n 10 -p big --seed 1"));
    assert!(status == 1 && text.contains(": byte "), "{text}");
    let (_, text) = fails(&mut freon(&cluster, "ocrr --keys 1 --clients 2 -n 10 -p big"));
    assert!(text.contains("has none of 1 objects") || text.contains("NOT_FOUND"), "{text}");
}

#[test]
fn scale_prepares_once_and_measures_each_way() {
    let cluster = Cluster::start();
    let mount = cluster.mount();
    let scale = |words: &str| {
        let mut command = freon(&cluster, "scale --files 50,600 --per-directory 100 --samples 20");
        command.args(["--entries", "700", "--extents", "3,1500"]);
        command.arg("--metad-http").arg(format!("127.0.0.1:{}", cluster.http_port(Role::Metad)));
        command.args(words.split_whitespace());
        command
    };
    let view = json(scale("--parts tree,directory,extents").arg("--path").arg(mount.path()));
    let kinds: Vec<_> = view["measurements"].as_array().unwrap().iter().map(key_of).collect();
    let expected =
        [("tree", 50), ("tree", 600), ("directory", 700), ("extents", 3), ("extents", 1500)];
    let expected: Vec<_> = expected
        .iter()
        .flat_map(|(kind, size)| {
            ["session", "mount"].map(|way| (kind.to_string(), *size, way.into()))
        })
        .collect();
    assert_eq!(kinds, expected);
    let operations = |n: usize| counts(&view["measurements"][n]);
    let tree: Vec<_> =
        operations(0).into_iter().map(|(name, count)| format!("{name} {count}")).collect();
    assert_eq!(
        tree,
        [
            "create 20",
            "lookup 20",
            "open 20",
            "read 4 KiB 20",
            "readdir page 20",
            "rename 20",
            "stat 20",
            "unlink 20",
            "write 4 KiB, fsync 20",
        ]
    );
    assert_eq!(view["preparations"].as_array().unwrap().len(), 5);
    let server = view["server"].as_array().unwrap();
    assert!(server.iter().all(|s| s["resident_bytes"].as_u64().unwrap() > 0), "{server:?}");
    assert!(server.last().unwrap()["inodes"].as_u64().unwrap() > 1350);
    // The tree is what it is said to be.
    let dirs = fs::read_dir(mount.join("scale/tree-600-100")).unwrap().count();
    assert_eq!(dirs, 6);
    assert_eq!(fs::read_dir(mount.join("scale/directory-700")).unwrap().count(), 700);
    let file = mount.join("scale/tree-600-100/d0000005/f000000599");
    assert_eq!(fs::metadata(file).unwrap().len(), 4096);

    // A second time all is there.
    let again = json(&mut scale("--parts tree --alone"));
    assert_eq!(again["preparations"].as_array().unwrap().len(), 0);
    assert_eq!(again["measurements"].as_array().unwrap().len(), 2);
    // What was left unfinished is told.
    fs::remove_file(mount.join("scale/tree-50-100.ready")).unwrap();
    let (_, text) = fails(&mut scale("--parts tree"));
    assert!(text.contains("its preparation was interrupted"), "{text}");
}

fn key_of(measurement: &serde_json::Value) -> (String, u64, String) {
    let text = |name: &str| measurement[name].as_str().unwrap().to_owned();
    (text("kind"), measurement["size"].as_u64().unwrap(), text("way"))
}

#[test]
fn requests_are_watched_while_checkpoints_run() {
    let cluster = Cluster::start();
    let http = format!("127.0.0.1:{}", cluster.http_port(Role::Metad));
    let words = "scale --parts checkpoint --checkpoints 2 --checkpoint-at 4M --metad-http";
    let view = json(freon(&cluster, words).arg(http));
    assert!(view["checkpoints"]["count"].as_u64().unwrap() >= 2, "{view}");
    assert!(view["checkpoints"]["mean_seconds"].as_f64().unwrap() > 0.0);
    let counted = counts(&view["checkpoints"]);
    let of = |name: &str| counted.iter().any(|(operation, n)| operation == name && *n > 0);
    assert!(of("lookup, between") && of("create, between"), "{counted:?}");
    assert!(of("lookup, during") && of("create, during"), "{counted:?}");
    let (_, text) =
        fails(&mut freon(&cluster, "scale --parts checkpoint --metad-http 127.0.0.1:1"));
    assert!(text.contains("metad's metrics at 127.0.0.1:1"), "{text}");
}
