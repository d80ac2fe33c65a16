//! docs/OPERATIONS.md: its commands are run, and its messages are those of the programs.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use crate::harness::PATIENCE;
use crate::namespaces::{open_folder, stage_within};
use crate::packaging::package;

/// Blocks that are not run, by their place: they build, and copy to machines that are there.
const NOT_RUN: &str = "build";
const PLACES: [&str; 6] = [NOT_RUN, "each", "host1", "host2", "host3", "host4"];

fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn operations() -> String {
    fs::read_to_string(workspace().join("docs/OPERATIONS.md")).unwrap()
}

/// The blocks of commands with their places, in order. Every block says where it belongs.
fn blocks(text: &str) -> Vec<(String, String)> {
    let mut blocks = Vec::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        let Some(info) = line.strip_prefix("```") else { continue };
        let place = info.strip_prefix("sh ").unwrap_or_else(|| panic!("a block of '{info}'"));
        assert!(PLACES.contains(&place), "{place}");
        let body: String =
            lines.by_ref().take_while(|line| *line != "```").map(|l| format!("{l}\n")).collect();
        blocks.push((place.to_owned(), body));
    }
    blocks
}

/// A control group for the machines, which goes with its children when it is dropped.
struct Group(PathBuf);

impl Group {
    /// None where this process may not make one.
    fn new() -> Option<Group> {
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let mount = mounts.lines().find(|line| line.contains(" - cgroup2 "))?;
        let dir = Path::new(mount.split(' ').nth(4)?);
        let group = dir.join(format!("ozone-e2e-{}", std::process::id()));
        fs::create_dir(&group).ok()?;
        Some(Group(group))
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        fn remove(dir: &Path) {
            for child in fs::read_dir(dir).into_iter().flatten().flatten() {
                if child.file_type().is_ok_and(|kind| kind.is_dir()) {
                    remove(&child.path());
                }
            }
            // The last process may still be on its way out; an empty group is no burden.
            let _ = fs::remove_dir(dir);
        }
        remove(&self.0);
    }
}

#[test]
fn every_command_is_run() {
    let blocks = blocks(&operations());
    let not_run = blocks.iter().filter(|(place, _)| place == NOT_RUN).count();
    assert_eq!(not_run, 1, "what cannot be run is this");
    let Some(group) = Group::new() else {
        eprintln!("skipped: no control group can be made here, and systemd needs one");
        return;
    };
    let dir = open_folder();
    let scripts = dir.path().join("blocks");
    fs::create_dir(&scripts).unwrap();
    for (number, (place, body)) in blocks.iter().enumerate() {
        if place != NOT_RUN {
            fs::write(scripts.join(format!("{number:02}.{place}")), body).unwrap();
        }
    }
    let deb = package();
    let args = [&scripts, deb, dir.path(), &group.0];
    // Four machines are installed one after the other.
    let said = stage_within(15 * PATIENCE, "operations.sh", &args, dir.path());
    assert!(said.ends_with("== done\n"), "{said}");
}

/// All source text, with string literals over several lines made one.
fn sources() -> String {
    fn add(dir: &Path, all: &mut String) {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                add(&path, all);
            } else if path.extension().is_some_and(|e| e == "rs") {
                let text = fs::read_to_string(&path).unwrap();
                let mut parts = text.split("\\\n");
                all.push_str(parts.next().unwrap_or_default());
                parts.for_each(|part| all.push_str(part.trim_start()));
            }
        }
    }
    let mut all = String::new();
    for krate in [
        "types",
        "platform",
        "rpc",
        "raftkit",
        "metad",
        "containerd",
        "blockd",
        "client",
        "fuse-client",
        "ozone",
    ] {
        add(&workspace().join(krate).join("src"), &mut all);
    }
    all
}

/// Messages of libraries and of the kernel, which are in no source of ours.
const FOREIGN: [&str; 7] = [
    "unknown field",
    "Address already in use",
    "Permission denied",
    "Read-only file system",
    "Transport endpoint is not connected",
    "/etc/ozone/",
    ".toml:",
];

#[test]
fn the_messages_are_the_programs() {
    let text = operations();
    let (_, errors) = text.split_once("\n## What each error means\n").unwrap();
    let (errors, _) = errors.split_once("\n## ").unwrap();
    let sources = sources();
    let (mut checked, mut unknown) = (BTreeSet::new(), BTreeSet::new());
    for row in errors.lines().filter(|line| line.starts_with("| `")) {
        let message = row.split('|').nth(1).unwrap();
        for quoted in message.split('`').skip(1).step_by(2) {
            // What stands for a value is left out.
            for part in quoted.split('…').map(|part| part.trim_matches([' ', '\'', ';', '(', ')']))
            {
                let foreign = FOREIGN.iter().any(|known| part.contains(known));
                if part.len() <= 3 || foreign {
                    continue;
                }
                match sources.contains(part) {
                    true => checked.insert(part.to_owned()),
                    false => unknown.insert(part.to_owned()),
                };
            }
        }
    }
    assert!(unknown.is_empty(), "no program says {unknown:#?}");
    assert!(checked.len() > 70, "{}: {checked:#?}", checked.len());
}
