//! Debian packages that the commands need, installed on demand.

use std::path::Path;
use std::process::Command;

/// A program, and the package that has it.
pub struct Need {
    /// Its name; the whole path of some file where a package has no program of its own.
    program: &'static str,
    package: &'static str,
}

const fn need_of(program: &'static str, package: &'static str) -> Need {
    Need { program, package }
}

/// For a mount by an ordinary user; as root nothing is needed, but fusermount3 does no harm.
pub const MOUNT: &[Need] = &[need_of("fusermount3", "fuse3")];

/// For a Debian package.
pub const DEB: &[Need] = &[
    need_of("dpkg-deb", "dpkg"),
    need_of("strip", "binutils"),
    need_of("gzip", "gzip"),
    need_of("find", "findutils"),
];

/// For the tests: the programs that are run in the mount.
pub const TESTS: &[Need] = &[
    need_of("fusermount3", "fuse3"),
    need_of("setfattr", "attr"),
    need_of("setfacl", "acl"),
    need_of("chattr", "e2fsprogs"),
    need_of("setpriv", "util-linux"),
    need_of("git", "git"),
    need_of("sqlite3", "sqlite3"),
    need_of("gcc", "gcc"),
    need_of("make", "make"),
    need_of("tar", "tar"),
    need_of("strace", "strace"),
    need_of("rsync", "rsync"),
    need_of("sha256sum", "coreutils"),
    need_of("ip", "iproute2"),
    need_of("unshare", "util-linux"),
    // pjdfstest is linked with it.
    need_of("/usr/include/sys/acl.h", "libacl1-dev"),
    need_of("find", "findutils"),
    need_of("dpkg-deb", "dpkg"),
    need_of("strip", "binutils"),
    need_of("curl", "curl"),
    need_of("man", "man-db"),
    need_of("systemd-analyze", "systemd"),
    need_of("vi", "vim-tiny"),
    need_of("perl", "perl"),
    need_of("python3", "python3"),
    need_of("/usr/share/doc/python3-venv", "python3-venv"),
    need_of("npm", "npm"),
    need_of("pg_lsclusters", "postgresql"),
];

/// Installs what is missing, or says what to install.
pub fn need(needs: &[Need]) -> Result<(), String> {
    let missing: Vec<&str> =
        needs.iter().filter(|n| !installed(n.program)).map(|n| n.package).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let list = missing.join(" ");
    let by_hand = format!("please install these packages and try again: {list}");
    if !installed("apt-get") {
        return Err(by_hand);
    }
    eprintln!("installing {list}");
    let sudo: &[&str] = if is_root() {
        &[]
    } else if installed("sudo") {
        &["sudo"]
    } else {
        return Err(by_hand);
    };
    let apt = |args: &[&str]| -> bool {
        let words: Vec<&str> = sudo.iter().copied().chain(["apt-get"]).collect();
        Command::new(words[0])
            .args(&words[1..])
            .args(args)
            .env("DEBIAN_FRONTEND", "noninteractive")
            .status()
            .is_ok_and(|s| s.success())
    };
    // An old index may name versions that are gone, so it is renewed first; an install may still
    // succeed where that fails.
    apt(&["update", "-qq"]);
    let mut args = vec!["install", "-y", "-qq", "--no-install-recommends"];
    args.extend(&missing);
    if apt(&args) { Ok(()) } else { Err(by_hand) }
}

fn installed(program: &str) -> bool {
    let path = std::env::var("PATH").unwrap_or_default();
    let system = ["/usr/sbin", "/sbin", "/usr/bin", "/bin"];
    path.split(':').chain(system).any(|dir| Path::new(dir).join(program).exists())
}

fn is_root() -> bool {
    std::fs::metadata("/proc/self").is_ok_and(|m| std::os::unix::fs::MetadataExt::uid(&m) == 0)
}
