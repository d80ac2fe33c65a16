//! Daemons refuse what would go wrong later: each with a clear error, nothing touched.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use crate::harness::{Cluster, Role, await_some, ozone};

/// Runs a daemon that must refuse to start; answers what it said.
fn refusal(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success(), "started, but should not have: {text}");
    text
}

fn listing(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn refusals() {
    let mut cluster = Cluster::start();
    // In use, by directory and by port.
    let text = refusal(cluster.command(Role::Metad).args(["--listen", "127.0.0.1:0"]));
    assert!(text.contains("in use"), "{text}");
    let other = tempfile::tempdir().unwrap();
    let at = cluster.metad_address();
    let text = refusal(
        ozone()
            .args(["metad", "--listen", &at, "--http-listen", "127.0.0.1:0"])
            .args(["--raft-listen", "127.0.0.1:0", "--containerd", &cluster.containerd_address()])
            .arg("--data-dir")
            .arg(other.path().join("metad")),
    );
    assert!(text.contains(&at) && text.contains("in use"), "{text}");

    // Another role's directory.
    let mine = cluster.data_dir(Role::Metad);
    cluster.kill(Role::Metad);
    let before = listing(&mine);
    let text = refusal(
        ozone()
            .args(["containerd", "--listen", "127.0.0.1:0", "--http-listen", "127.0.0.1:0"])
            .args(["--raft-listen", "127.0.0.1:0"])
            .arg("--data-dir")
            .arg(&mine),
    );
    assert!(text.contains("metad") && text.contains("containerd"), "{text}");
    assert_eq!(listing(&mine), before, "nothing was touched");

    // An unknown format.
    let version = mine.join("VERSION");
    let text = fs::read_to_string(&version).unwrap();
    fs::write(&version, text.replace("format = 1", "format = 77")).unwrap();
    let said = refusal(&mut cluster.command(Role::Metad));
    assert!(said.contains("77"), "{said}");
    fs::write(&version, text).unwrap();
    cluster.restart(Role::Metad);

    // A directory that is somebody else's.
    let foreign = other.path().join("home");
    fs::create_dir(&foreign).unwrap();
    fs::write(foreign.join("thesis.tex"), "x").unwrap();
    let text = refusal(
        ozone()
            .args(["blockd", "--listen", "127.0.0.1:0", "--http-listen", "127.0.0.1:0"])
            .args(["--containerd", &cluster.containerd_address()])
            .arg("--data-dir")
            .arg(&foreign),
    );
    assert!(text.contains("thesis.tex"), "{text}");
    assert_eq!(listing(&foreign), ["thesis.tex"]);

    // An unknown key.
    let toml = other.path().join("m.toml");
    fs::write(&toml, "data_dirr = '/x'\n").unwrap();
    let text = refusal(ozone().args(["metad", "--config"]).arg(&toml));
    assert!(text.contains("data_dirr"), "{text}");
}

#[test]
fn a_block_server_of_another_cluster_is_refused() {
    let mut one = Cluster::start();
    let two = Cluster::start();
    one.kill(Role::Blockd(0));
    let text = refusal(&mut one.command_of(Role::Blockd(0), &two.containerd_address()));
    assert!(text.contains("cluster"), "{text}");
}

#[test]
fn daemons_stop_on_sigterm_and_tell_their_health() {
    let mut cluster = Cluster::start();
    for role in [Role::Metad, Role::Containerd, Role::Blockd(0)] {
        let (status, text) = cluster.http(role, "/metrics").unwrap();
        assert_eq!(status, 200);
        assert!(text.contains("# TYPE") && text.ends_with("# EOF\n"), "{text}");
        cluster.process(role).signal(libc::SIGTERM);
        let status = await_some("a clean end", || cluster.process(role).ended());
        assert_eq!(status.code(), Some(0), "{role:?}: {}", cluster.log(role));
        cluster.restart(role);
    }
    cluster.await_healthy();
    cluster.await_well_told();
    let mode = fs::metadata(cluster.data_dir(Role::Metad)).unwrap().permissions().mode();
    assert_eq!(mode & 0o007, 0, "the token key is nobody else's");
}
