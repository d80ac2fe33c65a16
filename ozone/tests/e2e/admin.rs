//! `ozone admin` on real servers: what it tells is what is there, for people and for machines.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::Path;
use std::process::Output;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::harness::{Cluster, Role, Settings, await_some, shell, tree};

impl Cluster {
    fn admin_output(&self, args: &str) -> Output {
        self.ozone().arg("admin").args(args.split(' ')).output().unwrap()
    }

    /// What it prints for people; it must succeed.
    #[track_caller]
    fn admin(&self, args: &str) -> String {
        let output = self.admin_output(args);
        let (out, err) = (text(&output.stdout), text(&output.stderr));
        assert!(output.status.success(), "admin {args}: {}\n{out}{err}", output.status);
        out
    }

    /// The same for machines.
    #[track_caller]
    fn json(&self, args: &str) -> Value {
        let out = self.admin(&format!("{args} --json"));
        serde_json::from_str(&out).unwrap_or_else(|e| panic!("admin {args}: {e}\n{out}"))
    }

    /// It must fail: the exit status and what it says.
    #[track_caller]
    fn admin_refuses(&self, args: &str) -> (i32, String) {
        let output = self.admin_output(args);
        assert!(!output.status.success(), "admin {args}: {}", text(&output.stdout));
        (output.status.code().unwrap(), text(&output.stderr))
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn list(value: &Value) -> &[Value] {
    value.as_array().unwrap_or_else(|| panic!("no list: {value}"))
}

/// A file with its data on the servers.
fn write_synced(path: &Path, bytes: &[u8]) {
    let mut file = File::create(path).unwrap();
    file.write_all(bytes).unwrap();
    file.sync_all().unwrap();
}

#[test]
fn servers_and_containers_are_listed() {
    let cluster = Cluster::start();
    let nothing = cluster.admin("pipeline list");
    assert!(nothing.contains("no container is open"), "{nothing}");
    let mount = cluster.mount();
    write_synced(&mount.join("f"), &[7; 100_000]);

    for (group, address) in [("om", cluster.metad_address()), ("scm", cluster.containerd_address())]
    {
        let told = cluster.admin(&format!("{group} roles"));
        assert!(told.contains("LEADER") && told.contains(&address), "{told}");
        let roles = cluster.json(&format!("{group} roles"));
        assert_eq!(list(&roles).len(), 1);
        assert_eq!(roles[0]["role"], "LEADER");
        assert_eq!(roles[0]["address"], address);
        assert_eq!(roles[0]["nodeId"], 1);
    }

    let nodes = cluster.json("datanode list");
    assert_eq!(list(&nodes).len(), 3);
    assert!(list(&nodes).iter().all(|n| n["state"] == "HEALTHY" && n["reported"] == true));
    assert_eq!(cluster.admin("datanode list").matches("HEALTHY").count(), 3);
    assert_eq!(list(&cluster.json("datanode list --state dead")).len(), 0);
    let (id, address) = (nodes[0]["id"].as_str().unwrap(), nodes[0]["address"].as_str().unwrap());
    for name in [id, &id[..8], address] {
        let info = cluster.json(&format!("datanode info {name}"));
        assert_eq!(info["id"], id);
        assert!(info["disks"][0]["path"].as_str().unwrap().contains("blockd"));
    }
    assert!(cluster.admin(&format!("datanode info {id}")).contains("in service"));
    let (status, said) = cluster.admin_refuses("datanode info nobody");
    assert!(status == 255 && said.starts_with("NOT_FOUND "), "{status} {said}");

    // The block server's next report tells what was written.
    let containers = await_some("a container with a block", || {
        let containers = cluster.json("container list");
        list(&containers).iter().any(|c| c["numberOfBlocks"] != 0).then_some(containers)
    });
    let of = |c: &Value| c["containerID"].as_u64().unwrap();
    let used = list(&containers).iter().find(|c| c["numberOfBlocks"] != 0).unwrap();
    assert_eq!((&used["state"], &used["replication"]), (&"OPEN".into(), &"THREE".into()));
    assert!(used["readable"] == true && used["underReplicated"] == false);
    let all = cluster.admin("container list --all");
    assert!(all.contains("OPEN") && all.contains("3/3") && all.contains("well"), "{all}");
    assert_eq!(list(&cluster.json("container list --state closed")).len(), 0);
    let one = cluster.json(&format!("container list --start {} --count 1", of(used)));
    assert_eq!(list(&one).iter().map(of).collect::<Vec<_>>(), [of(used)]);
    let on_one = cluster.json(&format!("container list --datanode {id}"));
    assert_eq!(list(&on_one).len(), list(&containers).len());

    let info = cluster.json(&format!("container info {}", of(used)));
    assert_eq!(list(&info[0]["replicas"]).len(), 3);
    assert!(list(&info[0]["replicas"]).iter().all(|r| r["good"] == true));
    assert!(cluster.admin(&format!("container info {0} {0}", of(used))).contains("PRESENT"));
    let (status, said) = cluster.admin_refuses("container info 4711");
    assert!(status == 255 && said.starts_with("NOT_FOUND there is no container 4711"), "{said}");
    assert_eq!(cluster.admin_refuses("container info").0, 2);
    let report = cluster.json("container report");
    assert_eq!(report["containerHealth"][0]["name"], "HEALTHY");
    assert_eq!(report["containerHealth"][0]["count"], list(&containers).len());
    assert!(cluster.admin("container report").contains("UNDER_REPLICATED"));

    let pipelines = cluster.json("pipeline list");
    assert_eq!(list(&pipelines).len(), 1, "three nodes are one set");
    assert_eq!(list(&pipelines[0]["nodes"]).len(), 3);
    let told = cluster.admin("pipeline list");
    assert!(told.contains("THREE") && told.contains(address), "{told}");
}

#[test]
fn a_dead_block_server_is_told_everywhere() {
    let mut cluster = Cluster::start();
    let mount = cluster.mount();
    write_synced(&mount.join("f"), &[7; 100_000]);
    cluster.await_well_told();
    let status = cluster.json("status");
    assert!(status["well"] == true && status["containerd"]["datanodesHealthy"] == 3, "{status}");
    await_some("the replicas to be reported", || {
        let containers = cluster.json("container list");
        list(&containers).iter().any(|c| c["numberOfBlocks"] != 0).then_some(())
    });

    cluster.kill(Role::Blockd(2));
    let dead = await_some("it to count as dead", || {
        let dead = cluster.json("datanode list --state dead");
        list(&dead).first().cloned()
    });
    assert!(dead["lastHeardMillis"].as_u64().unwrap() >= 8000, "{dead}");
    let report = await_some("containers to lack it", || {
        let report = cluster.json("container report");
        let short = list(&report["containerHealth"])
            .iter()
            .find(|c| c["name"] == "UNDER_REPLICATED" && c["count"] != 0);
        short.cloned()
    });
    let id = report["containers"][0].as_u64().unwrap();
    let told = cluster.admin(&format!("container info {id}"));
    assert!(told.contains("DEAD") && told.contains("it has 2 good replicas of 3"), "{told}");
    assert!(!told.contains("cannot be read"), "{told}");

    let output = cluster.admin_output("status --json");
    assert_eq!(output.status.code(), Some(1), "something is wrong");
    let status: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(status["well"] == false && status["containerd"]["datanodesHealthy"] == 2, "{status}");
    let problems = list(&status["problems"]);
    let about = |what: &str| problems.iter().find(|p| p["what"].as_str().unwrap().contains(what));
    assert_eq!(about("is dead").unwrap()["todo"], "start it again");
    assert!(about("under-replicated").is_some(), "{status}");

    cluster.restart(Role::Blockd(2));
    await_some("all to be healthy", || {
        let well = cluster.json("datanode list --state healthy");
        (list(&well).len() == 3).then_some(())
    });
}

#[test]
fn an_evicted_mount_loses_its_locks_and_goes_on_in_a_new_session() {
    let cluster = Cluster::start();
    let (a, b) = (cluster.mount(), cluster.mount());
    write_synced(&a.join("f"), b"before");
    let held = File::open(a.join("f")).unwrap();
    held.try_lock().unwrap();
    let other = File::open(b.join("f")).unwrap();
    assert!(other.try_lock().is_err(), "held by the other mount");

    let sessions = cluster.json("session list");
    assert_eq!(list(&sessions).len(), 2);
    let of = |mount: &Path, sessions: &Value| {
        let at = |s: &&Value| s["mountpoint"] == mount.to_str().unwrap();
        list(sessions).iter().find(at).cloned()
    };
    let mine = of(a.path(), &sessions).unwrap();
    assert!(mine["connected"] == true && mine["locks"] == 1, "{mine}");
    assert!(mine["openFiles"].as_u64().unwrap() >= 1 && mine["openedMillis"].is_i64(), "{mine}");
    let told = cluster.admin("session list");
    assert!(told.contains(a.path().to_str().unwrap()) && told.contains("connected"), "{told}");

    let id = mine["id"].as_u64().unwrap();
    cluster.admin(&format!("session evict {id}"));
    other.try_lock().expect("its locks have gone with it");
    let again = await_some("the mount's new session", || {
        of(a.path(), &cluster.json("session list")).filter(|s| s["id"] != id)
    });
    assert_eq!(again["locks"], 0);
    write_synced(&a.join("g"), b"after");
    assert_eq!(fs::read(b.join("g")).unwrap(), b"after");
    assert_eq!(fs::read(a.join("f")).unwrap(), b"before");
    let (status, said) = cluster.admin_refuses(&format!("session evict {id}"));
    assert!(status == 255 && said.starts_with("NOT_FOUND there is no session"), "{said}");
    assert_eq!(cluster.admin_refuses("session evict").0, 2);

    let both = cluster.json("session list");
    let both: Vec<u64> = list(&both).iter().map(|s| s["id"].as_u64().unwrap()).collect();
    assert_eq!(both.len(), 2);
    cluster.admin(&format!("session evict {} {}", both[0], both[1]));
    let left = cluster.json("session list");
    assert!(list(&left).iter().all(|s| !both.contains(&s["id"].as_u64().unwrap())), "{left}");
}

#[test]
fn open_files_tell_who_has_what() {
    let cluster = Cluster::start();
    let a = cluster.mount();
    fs::create_dir_all(a.join("d/e")).unwrap();
    write_synced(&a.join("d/e/read"), b"r");
    let mut written = File::create(a.join("d/written")).unwrap();
    written.write_all(b"w").unwrap();
    let mut read = File::open(a.join("d/e/read")).unwrap();
    read.read_exact(&mut [0]).unwrap();
    read.lock_shared().unwrap();
    let open = cluster.json("open-files list");
    let of = |open: &Value, path: &str| {
        let found = list(open).iter().find(|f| f["path"] == path).cloned();
        found.unwrap_or_else(|| panic!("no {path} in {open:#}"))
    };
    let file = of(&open, "d/written");
    assert_eq!((&file["open"], &file["lease"]), (&"WRITE".into(), &"WRITE".into()));
    assert_eq!((&file["volume"], &file["bucket"]), (&"vol1".into(), &"bucket1".into()));
    assert_eq!(file["mountpoint"], a.path().to_str().unwrap());
    let names = list(&open).iter().find(|f| f["kind"] == "NAMESPACE").unwrap();
    assert_eq!(names["lease"], "WRITE", "it is alone in its bucket");
    assert!(cluster.admin("open-files list").contains("/vol1/bucket1/d/e/read"));

    // A second client takes what was held alone; from then on metad keeps the locks.
    let b = cluster.mount();
    let mut shared = File::open(b.join("d/written")).unwrap();
    shared.read_exact(&mut [0]).unwrap();
    let mut read_there = File::open(b.join("d/e/read")).unwrap();
    read_there.read_exact(&mut [0]).unwrap();
    let open = cluster.json("open-files list");
    let of_b = |f: &&Value| f["path"] == "d/e/read" && f["mountpoint"] != file["mountpoint"];
    assert_eq!(list(&open).iter().find(of_b).unwrap()["open"], "READ");
    let locked = of(&open, "d/e/read");
    assert_eq!((&locked["lockCount"], &locked["session"]), (&1.into(), &file["session"]));
    assert_eq!(locked["locks"][0]["family"], "FLOCK");
    assert_eq!(locked["locks"][0]["kind"], "SHARED");
    assert!(cluster.admin("open-files list").contains("flock shared"));
    let shared_by: Vec<_> = list(&open).iter().filter(|f| f["path"] == "d/written").collect();
    assert_eq!(shared_by.len(), 2);
    assert!(shared_by.iter().all(|f| f["lease"] == "NONE"), "{open:#}");
    let session = &file["session"];
    let only = cluster.json(&format!("open-files list --session {session} --no-path"));
    assert!(list(&only).iter().all(|f| f["session"] == *session && f["path"].is_null()));
    fs::remove_file(b.join("d/written")).unwrap();
    let open = cluster.json("open-files list");
    let gone: Vec<_> = list(&open).iter().filter(|f| f["deleted"] == true).collect();
    assert_eq!(gone.len(), 2, "both have it open still: {open:#}");
    assert!(gone.iter().all(|f| f["path"].is_null()));
    drop((written, read, shared, read_there));
    await_some("all to be closed", || {
        let open = cluster.json("open-files list");
        list(&open).iter().all(|f| f["kind"] == "NAMESPACE").then_some(())
    });
}

/// What du(1) tells of each directory right below: name and bytes.
fn du(dir: &Path) -> Vec<(String, u64)> {
    let lines = shell(dir, "du -B1 --max-depth=1 . | LC_ALL=C sort -k2");
    let line = |line: &str| {
        let (bytes, name) = line.split_once('\t').unwrap();
        (name.trim_start_matches("./").to_owned(), bytes.parse().unwrap())
    };
    lines.lines().map(line).collect()
}

#[test]
fn namespace_sums_are_those_of_du_and_find() {
    let cluster = Cluster::start();
    let mut mount = cluster.mount();
    let root = mount.path().to_owned();
    tree::make(&root, 400, 3);
    shell(&root, "mkdir links empty; ln d00/e00/f0 links/hard; ln -s nowhere links/soft");
    shell(&root, "truncate -s 10M links/sparse; mkfifo links/fifo");
    mount.remount();

    let told = cluster.json("namespace du /vol1/bucket1");
    let mut expected = du(&root);
    let all = expected.remove(0);
    assert_eq!(all.0, ".");
    assert_eq!(told["allocated"], all.1, "{told:#}");
    assert_eq!(told["replicated"], 3 * all.1);
    assert!(cluster.admin("namespace du /vol1/bucket1 -r").contains("WITH REPLICAS"));
    let mut sub_paths: Vec<(String, u64)> = list(&told["subPaths"])
        .iter()
        .map(|e| (e["path"].as_str().unwrap().to_owned(), e["allocated"].as_u64().unwrap()))
        .map(|(path, bytes)| (path.replace("/vol1/bucket1/", "").replace('/', ""), bytes))
        .collect();
    sub_paths.sort();
    // A file with two names may be met under the other one first.
    let linked = |name: &str| ["d00", "links"].contains(&name);
    let (ours, theirs) = (&sub_paths, &expected);
    assert_eq!(ours.len(), theirs.len());
    for (ours, theirs) in ours.iter().zip(theirs).filter(|(ours, _)| !linked(&ours.0)) {
        assert_eq!(ours, theirs);
    }
    let of_linked =
        |list: &[(String, u64)]| -> u64 { list.iter().filter(|e| linked(&e.0)).map(|e| e.1).sum() };
    assert_eq!(of_linked(ours), of_linked(theirs));

    let count = |script: &str| -> u64 { shell(&root, script).trim().parse().unwrap() };
    let files = count("find . -type f -printf '%i\\n' | sort -u | wc -l");
    let summary = cluster.json("namespace summary /vol1/bucket1");
    assert_eq!(summary["entityType"], "BUCKET");
    assert_eq!(summary["files"], files);
    assert_eq!(summary["directories"], count("find . -mindepth 1 -type d | wc -l"));
    assert_eq!(summary["others"], count("find . -not -type f -not -type d | wc -l"));
    let bytes = "find . \\( -type f -o -type l \\) -printf '%i %s\\n' | sort -u | \
                 awk '{ sum += $2 } END { print sum }'";
    assert_eq!(summary["bytes"], count(bytes));
    let text = cluster.admin("namespace summary /vol1/bucket1");
    assert!(text.contains(&format!("files        {files}\n")), "{text}");

    // Parts, and what is above the bucket.
    let part = cluster.json("namespace du /vol1/bucket1/d01 --file --length 2");
    assert_eq!(part["allocated"], du(&root.join("d01"))[0].1);
    assert_eq!(list(&part["subPaths"]).len(), 2);
    let file = cluster.json("namespace summary o3://anywhere:1/vol1/bucket1/links/sparse");
    assert_eq!((&file["entityType"], &file["bytes"]), (&"KEY".into(), &(10 << 20).into()));
    assert_eq!(file["allocated"], 0);
    let volume = cluster.json("namespace summary /vol1");
    assert_eq!((&volume["buckets"], &volume["files"]), (&1.into(), &files.into()));
    let cluster_wide = cluster.json("namespace du /");
    assert_eq!(cluster_wide["subPaths"][0]["path"], "/vol1");
    assert_eq!(cluster_wide["files"], files);
    assert!(cluster.admin("namespace du /vol1").contains("/vol1 (all of it)"));

    let quota = cluster.json("namespace quota /vol1/bucket1");
    assert_eq!(quota[0]["usedBytes"], summary_stored(&root));
    assert_eq!(quota[0]["quotaInBytes"], -1);
    assert_eq!(quota[0]["usedNamespace"], count("find . -mindepth 1 | wc -l"));
    let of_volume = cluster.json("namespace quota /vol1");
    assert_eq!(list(&of_volume).len(), 2, "the volume and its bucket");
    assert!(cluster.admin("namespace quota /").contains("none"));
    for (path, word) in [
        ("/vol1/bucket1/nothing", "NOT_FOUND "),
        ("/vol1/none", "BUCKET_NOT_FOUND "),
        ("/none", "VOLUME_NOT_FOUND "),
    ] {
        let (status, said) = cluster.admin_refuses(&format!("namespace du {path}"));
        assert!(status == 255 && said.starts_with(word), "{status} {said}");
    }
}

/// Bytes that files' extents cover: all of these files are written without holes, or are one hole.
fn summary_stored(root: &Path) -> u64 {
    let script = "find . -type f -not -name sparse -printf '%i %s\\n' | sort -u | \
                  awk '{ sum += $2 } END { print sum }'";
    shell(root, script).trim().parse().unwrap()
}

#[test]
fn safe_mode_after_a_start_waits_for_block_servers() {
    let mut cluster = Cluster::with(Settings { dead_after_ms: 60_000, ..Settings::default() });
    let mut mount = cluster.mount();
    write_synced(&mount.join("f"), &[7; 100_000]);
    await_some("the replicas to be reported", || {
        let containers = cluster.json("container list");
        list(&containers).iter().any(|c| c["numberOfBlocks"] != 0).then_some(())
    });
    assert!(cluster.admin("safemode status").starts_with("safe mode is OFF"));
    assert_eq!(cluster.json("safemode wait --timeout 0")["inSafeMode"], false);
    mount.down();

    // Nobody is there who knows a replica.
    for role in [Role::Blockd(0), Role::Blockd(1), Role::Blockd(2), Role::Containerd] {
        cluster.kill(role);
    }
    cluster.restart(Role::Containerd);
    let status = await_some("the first word", || Some(cluster.json("safemode status")));
    assert_eq!((&status["mode"], &status["inSafeMode"]), (&"STARTING".into(), &true.into()));
    assert_eq!((&status["rules"][0]["have"], &status["rules"][0]["all"]), (&0.into(), &3.into()));
    let unreadable = status["unreadableContainers"][0].as_u64().unwrap();
    let told = cluster.admin("safemode status");
    assert!(told.contains("0 of 3 known block servers"), "{told}");
    assert!(told.contains("their blocks cannot be read yet"), "{told}");
    let told = cluster.admin(&format!("container info {unreadable}"));
    assert!(told.contains("cannot be read yet") && told.contains("UNKNOWN"), "{told}");
    assert!(cluster.admin("datanode list").contains("UNKNOWN"));
    let begin = Instant::now();
    let (status, said) = cluster.admin_refuses("safemode wait --timeout 1");
    assert!(status == 1 && said.contains("still in safe mode"), "{status} {said}");
    assert!(begin.elapsed() >= Duration::from_secs(1));
    assert!(cluster.status().contains("containerd is in safe mode: 0 of 3"));

    // Two come; the third is waited for until the settle time is over, which it is soon.
    cluster.restart(Role::Blockd(0));
    cluster.restart(Role::Blockd(1));
    let status = cluster.json("safemode wait --timeout 30");
    assert_eq!((&status["mode"], &status["rules"][0]["have"]), (&"OFF".into(), &2.into()));
    assert_eq!(list(&status["unreadableContainers"]).len(), 0);
    mount.up();
    assert_eq!(fs::read(mount.join("f")).unwrap(), vec![7; 100_000]);
    write_synced(&mount.join("g"), b"on two of three");
    cluster.restart(Role::Blockd(2));
}

#[test]
fn an_operators_safe_mode_holds_writers_up_until_it_is_left() {
    let cluster = Cluster::start();
    let first = cluster.mount();
    write_synced(&first.join("f"), b"before");
    let entered = cluster.json("safemode enter");
    assert_eq!(entered["mode"], "ENTERED");
    assert!(cluster.admin("safemode status").contains("an operator entered it"));
    assert!(cluster.status().contains("containerd is in safe mode: an operator entered it"));
    // metad has heard of it when it has looked at the topology, which is at once.
    std::thread::sleep(Duration::from_millis(300));
    let second = cluster.mount();
    assert_eq!(fs::read(second.join("f")).unwrap(), b"before", "reading goes on");
    let path = second.join("g");
    let writer = std::thread::spawn(move || write_synced(&path, b"after"));
    std::thread::sleep(Duration::from_secs(2));
    assert!(!writer.is_finished(), "it needs a new block");
    assert_eq!(cluster.json("safemode exit")["mode"], "OFF");
    writer.join().unwrap();
    assert_eq!(fs::read(first.join("g")).unwrap(), b"after");
}
