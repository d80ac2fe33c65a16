//! What is installed: the Debian package, and the files that `cargo xtask install` puts in place.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use ozone_packaging::{Compression, DAEMONS, HELPERS, Layout, Tree, VERSION, deb};
use tempfile::TempDir;

use crate::namespaces::{open_folder, stage};

fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn tree(layout: &Layout) -> Tree {
    Tree::new(layout, &workspace(), Path::new(env!("CARGO_BIN_EXE_ozone"))).unwrap()
}

/// The package of the program under test, made once.
pub fn package() -> &'static Path {
    static PACKAGE: OnceLock<(TempDir, PathBuf)> = OnceLock::new();
    let (_, path) = PACKAGE.get_or_init(|| {
        let dir = open_folder();
        let tree = tree(&Layout::package());
        let path = deb(tree, &workspace(), dir.path(), Compression::Quick).unwrap();
        (dir, path)
    });
    path
}

/// What a command that must succeed prints.
fn output(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {}\n{said}", output.status);
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn the_package_has_everything() {
    let package = package();
    let name = package.file_name().unwrap().to_str().unwrap();
    assert!(name.starts_with(&format!("ozone-fs_{VERSION}_")), "{name}");

    let info = output(Command::new("dpkg-deb").arg("--field").arg(package));
    for part in ["Package: ozone-fs", "fuse3", "libc6 (>= 2."] {
        assert!(info.contains(part), "{part} in {info}");
    }
    for unfilled in ["@VERSION@", "@ARCH@", "@GLIBC@", "@SIZE@"] {
        assert!(!info.contains(unfilled), "{info}");
    }

    // As tar lists it: mode, owner, size, date, time, path.
    let contents = output(Command::new("dpkg-deb").arg("--contents").arg(package));
    let mode_of = |path: &str| -> &str {
        let line = contents.lines().find(|line| {
            let listed = line.split_whitespace().nth(5).unwrap();
            listed == format!("./{path}")
        });
        let line = line.unwrap_or_else(|| panic!("no {path} in {contents}"));
        assert_eq!(line.split_whitespace().nth(1), Some("root/root"), "{line}");
        line.split_whitespace().next().unwrap()
    };
    assert_eq!(mode_of("usr/bin/ozone"), "-rwxr-xr-x");
    for helper in HELPERS {
        assert_eq!(mode_of(&format!("usr/sbin/{helper}")), "lrwxrwxrwx");
        assert_eq!(mode_of(&format!("usr/share/man/man8/{helper}.8.gz")), "-rw-r--r--");
    }
    for daemon in DAEMONS {
        assert_eq!(
            mode_of(&format!("usr/lib/systemd/system/ozone-{daemon}.service")),
            "-rw-r--r--"
        );
        assert_eq!(mode_of(&format!("etc/ozone/{daemon}.toml")), "-rw-r--r--");
        assert_eq!(mode_of(&format!("usr/share/man/man8/ozone-{daemon}.8.gz")), "-rw-r--r--");
    }
    for file in [
        "etc/ozone/ozone.toml",
        "usr/lib/sysusers.d/ozone-fs.conf",
        "usr/lib/systemd/system-preset/50-ozone-fs.preset",
        "usr/share/man/man1/ozone.1.gz",
        "usr/share/man/man1/ozone-sh-bucket-create.1.gz",
        "usr/share/bash-completion/completions/ozone",
        "usr/share/zsh/vendor-completions/_ozone",
        "usr/share/fish/vendor_completions.d/ozone.fish",
        "usr/share/doc/ozone-fs/OPERATIONS.md",
        "usr/share/doc/ozone-fs/examples/mnt-ozone.mount",
        "usr/share/doc/ozone-fs/copyright",
        "usr/share/doc/ozone-fs/changelog.gz",
    ] {
        assert_eq!(mode_of(file), "-rw-r--r--");
    }
    // The container runtime's name is its own.
    for line in contents.lines() {
        assert!(!line.ends_with("/containerd") && !line.ends_with("/containerd.service"), "{line}");
    }
}

#[test]
fn what_is_in_the_package_runs() {
    let dir = tempfile::tempdir().unwrap();
    let (root, control) = (dir.path().join("root"), dir.path().join("control"));
    output(Command::new("dpkg-deb").arg("--extract").arg(package()).arg(&root));
    output(Command::new("dpkg-deb").arg("--control").arg(package()).arg(&control));
    let said = output(Command::new(root.join("usr/bin/ozone")).arg("--version"));
    assert_eq!(said, format!("ozone {VERSION}\n"));
    let helper = root.join("usr/sbin/mount.fuse.ozone");
    assert!(output(Command::new(helper).arg("--help")).contains("SOURCE DIRECTORY"));
    output(Command::new("md5sum").arg("--check").arg(control.join("md5sums")).current_dir(&root));

    let settings = fs::read_to_string(control.join("conffiles")).unwrap();
    let settings: Vec<&str> = settings.lines().collect();
    let expected =
        ["ozone", "metad", "containerd", "blockd"].map(|n| format!("/etc/ozone/{n}.toml"));
    assert_eq!(settings, expected);
    for script in ["postinst", "prerm", "postrm"] {
        output(Command::new("sh").arg("-n").arg(control.join(script)));
        let mode = fs::metadata(control.join(script)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o755, "{script}");
    }
    // man(1) has nothing to complain about.
    for section in ["man1", "man8"] {
        let pages = fs::read_dir(root.join("usr/share/man").join(section)).unwrap();
        let pages: Vec<PathBuf> = pages.map(|page| page.unwrap().path()).collect();
        let mut man = Command::new("man");
        man.args(["--warnings", "--local-file", "--encoding=utf8"]).args(&pages);
        let output =
            man.env("MANROFFSEQ", "").env("MANWIDTH", "80").env("LC_ALL", "C.UTF-8").output();
        let said = String::from_utf8(output.unwrap().stderr).unwrap();
        assert_eq!(said, "", "{section}");
    }
}

/// With dpkg on a machine whose folders are private: its user, its units as systemd reads them, its end.
#[test]
fn dpkg_installs_and_purges() {
    let dir = open_folder();
    let said = stage("package.sh", &[package(), dir.path()], dir.path());
    assert!(said.ends_with("== done\n"), "{said}");
}

#[test]
fn install_and_uninstall_below_a_folder() {
    let dir = tempfile::tempdir().unwrap();
    let layout = Layout::local(Path::new("/opt/ozone")).unwrap();
    let tree = tree(&layout);
    ozone_packaging::install(&tree, dir.path()).unwrap();
    let at = |path: &str| dir.path().join(path);
    let said = output(Command::new(at("opt/ozone/bin/ozone")).arg("--version"));
    assert_eq!(said, format!("ozone {VERSION}\n"));
    let sbin = fs::canonicalize("/sbin").unwrap();
    let sbin = dir.path().join(sbin.strip_prefix("/").unwrap());
    for helper in HELPERS {
        assert_eq!(fs::read_link(sbin.join(helper)).unwrap(), Path::new("/opt/ozone/bin/ozone"));
    }
    for daemon in DAEMONS {
        let unit = at(&format!("opt/ozone/lib/systemd/system/ozone-{daemon}.service"));
        let unit = fs::read_to_string(unit).unwrap();
        let start = format!(
            "\nExecStart=/opt/ozone/bin/ozone {daemon} --config /etc/ozone/{daemon}.toml\n"
        );
        assert!(
            unit.contains(&start) && !unit.contains("@BIN@") && !unit.contains("@DOC@"),
            "{unit}"
        );
    }
    assert!(at("opt/ozone/share/man/man8/ozone-metad.8").exists());
    assert!(Layout::local(Path::new("opt")).is_err(), "a prefix is absolute");

    ozone_packaging::uninstall(&tree, dir.path()).unwrap();
    let left = output(Command::new("find").arg(dir.path()).args(["-not", "-type", "d"]));
    assert_eq!(left, "");
}
