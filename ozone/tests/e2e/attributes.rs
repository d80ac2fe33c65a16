//! Extended attributes, ACLs, holes and shared copies, by the programs that people use for them.

use std::path::Path;

use crate::harness::{Cluster, shell};

#[test]
fn extended_attributes_are_kept_and_shared() {
    let cluster = Cluster::start();
    let mut mount = cluster.mount();
    let here = shell(
        mount.path(),
        "mkdir d; echo x > d/f; ln -s f d/l
         setfattr -n user.colour -v blue d/f
         setfattr -n user.colour -v green d
         setfattr -n trusted.secret -v 1 d/f
         setfattr -h -n trusted.link -v 2 d/l
         ! setfattr -n user.toolarge -v \"$(head -c 70000 /dev/zero | tr '\\0' x)\" d/f
         ! setfattr -n wrong.prefix -v 1 d/f
         ! getfattr --only-values -n user.none d/f
         getfattr -m - -d d/f d | sort",
    );
    for line in ["user.colour=\"blue\"", "user.colour=\"green\"", "trusted.secret=\"1\""] {
        assert!(here.contains(line), "{line} is not in\n{here}");
    }
    let other = cluster.mount();
    assert_eq!(shell(other.path(), "getfattr -m - -d d/f d | sort"), here);
    shell(mount.path(), "setfattr -x user.colour d/f");
    let left = shell(other.path(), "getfattr -m - -d d/f");
    assert!(!left.contains("colour") && left.contains("secret"), "{left}");
    // An ordinary user does not see the trusted ones.
    let seen =
        shell(other.path(), "chmod 755 .; setpriv --reuid nobody getfattr -m - d/f d || true");
    assert!(!seen.contains("trusted"), "{seen}");
    drop(other);
    mount.remount();
    let kept = shell(mount.path(), "getfattr -h -m - -d d/l d/f d");
    for line in ["trusted.link=\"2\"", "trusted.secret=\"1\"", "user.colour=\"green\""] {
        assert!(kept.contains(line), "{line} is not in\n{kept}");
    }
}

#[test]
fn acls_rule_and_are_inherited() {
    let cluster = Cluster::start();
    let mut mount = cluster.mount();
    let as_nobody = "setpriv --reuid nobody --regid nogroup --clear-groups";
    shell(
        mount.path(),
        &format!(
            "chmod 755 .; umask 027
             mkdir d; echo secret > d/f; chmod 640 d/f; chmod 711 d
             ! {as_nobody} cat d/f
             setfacl -m u:nobody:r d/f
             [ \"$({as_nobody} cat d/f)\" = secret ]
             [ \"$(stat -c %a d/f)\" = 640 ]
             setfacl -m u:nobody:rw d/f
             [ \"$(stat -c %a d/f)\" = 660 ]
             chmod 600 d/f
             ! {as_nobody} cat d/f
             getfacl -c d/f | grep -q 'user:nobody:rw-.*#effective:---'
             setfacl -b d/f
             [ -z \"$(getfacl -s d/f)\" ]
             setfacl -d -m u:nobody:rwx,g::rx,o::- d
             mkdir d/sub; touch d/sub/g; echo '#!/bin/sh' > d/g
             getfacl -c d/sub | grep -q default:user:nobody:rwx
             getfacl -c d/g | grep -q 'user:nobody:rwx.*#effective:rw-'
             [ \"$(stat -c %a d/g)\" = 660 ]"
        ),
    );
    let listing = "getfacl -R d";
    let here = shell(mount.path(), listing);
    let other = cluster.mount();
    assert_eq!(shell(other.path(), listing), here);
    drop(other);
    mount.remount();
    assert_eq!(shell(mount.path(), listing), here);
    // Out and in again.
    shell(
        mount.path(),
        "setfattr -n user.a -v b d/g
         tar --acls --xattrs --xattrs-include='*' -cf t.tar d; mkdir out
         tar --acls --xattrs --xattrs-include='*' -xpf t.tar -C out
         diff <(cd out && getfacl -R d) <(getfacl -R d)
         [ \"$(getfattr --only-values -n user.a out/d/g)\" = b ]",
    );
}

/// Where a file has data and where holes, in MiB.
const MAP: &str = r#"
import os, sys
fd = os.open(sys.argv[1], os.O_RDONLY)
end = os.fstat(fd).st_size
at, parts = 0, []
while at < end:
    try:
        data = os.lseek(fd, at, os.SEEK_DATA)
    except OSError:
        break
    hole = os.lseek(fd, data, os.SEEK_HOLE)
    parts.append("%d-%d" % (data >> 20, hole >> 20))
    at = hole
print(" ".join(parts), end >> 20)
"#;

fn map(dir: &Path, file: &str) -> String {
    shell(dir, &format!("python3 -c '{MAP}' {file}")).trim().to_owned()
}

#[test]
fn holes_are_punched_found_and_copied() {
    let cluster = Cluster::start();
    let mut mount = cluster.mount();
    let dir = mount.path().to_owned();
    shell(&dir, "head -c 8M /dev/urandom > f; cp f before; truncate -s 12M f");
    assert_eq!(map(&dir, "f"), "0-8 12");
    shell(
        &dir,
        "fallocate -p -o 2M -l 3M f; dd if=/dev/urandom of=f bs=1M seek=10 count=1 conv=notrunc status=none",
    );
    assert_eq!(map(&dir, "f"), "0-2 5-8 10-11 12");
    shell(
        &dir,
        "cmp -n 2097152 f before
         cmp -n 3145728 -i 2097152:0 f /dev/zero
         cmp -n 3145728 -i 5242880:5242880 f before
         fallocate -z -o 6M -l 1M f; cmp -n 1048576 -i 6291456:0 f /dev/zero
         fallocate -l 14M f; [ $(stat -c %s f) = $((14 << 20)) ]
         fallocate -n -l 20M f; [ $(stat -c %s f) = $((14 << 20)) ]
         fallocate -z -o 13M -l 3M f; [ $(stat -c %s f) = $((16 << 20)) ]
         ! fallocate -c -o 1M -l 1M f 2> /dev/null
         ! fallocate -l 100T f 2> /dev/null",
    );
    // st_blocks counts what is stored: 2 + 1 + 1 + 1 MiB.
    assert_eq!(shell(&dir, "stat -c %b f").trim(), (5 << 11).to_string());
    shell(
        &dir,
        "cp --sparse=always f sparse; cmp f sparse; tar --sparse -cf t.tar f; mkdir out; tar -xf t.tar -C out; cmp f out/f",
    );
    let sum = shell(&dir, "sha256sum < f");
    mount.remount();
    assert_eq!(shell(&dir, "sha256sum < f"), sum);
    assert_eq!(map(&dir, "f"), map(&dir, "sparse"));
}

/// copy_file_range(2) shares what is stored: it takes neither time nor space, and the copies are
/// nevertheless each one's own.
#[test]
fn copies_share_and_are_independent() {
    const COPY: &str = r#"
import os, sys
a = os.open(sys.argv[1], os.O_RDONLY)
b = os.open(sys.argv[2], os.O_RDWR | os.O_CREAT)
left, at = os.fstat(a).st_size, 0
while left:
    n = os.copy_file_range(a, b, left, at, at)
    assert n > 0
    at += n
    left -= n
"#;
    let cluster = Cluster::start();
    let mut mount = cluster.mount();
    let dir = mount.path().to_owned();
    shell(&dir, "head -c 64M /dev/urandom > a; sync a");
    let appended = |cluster: &Cluster| -> u64 {
        use crate::harness::Role;
        (0..3)
            .map(|n| {
                let (_, text) = cluster.http(Role::Blockd(n), "/metrics").unwrap();
                let line = text.lines().find(|l| l.starts_with("ozone_blockd_append_bytes"));
                line.and_then(|l| l.rsplit(' ').next()?.parse::<u64>().ok()).expect("a counter")
            })
            .sum()
    };
    let before = appended(&cluster);
    shell(&dir, &format!("python3 -c '{COPY}' a b; cmp a b"));
    assert!(appended(&cluster) - before < 1 << 20, "the bytes were written again");
    shell(
        &dir,
        "cp a original
         printf changed | dd of=b bs=1 seek=5000000 conv=notrunc status=none; ! cmp -s a b; cmp a original
         truncate -s 1M a; rm original
         [ $(stat -c %s b) = $((64 << 20)) ]; cmp -n 1048576 a b",
    );
    let sum = shell(&dir, "sha256sum < b");
    shell(&dir, "rm a");
    let other = cluster.mount();
    assert_eq!(shell(other.path(), "sha256sum < b"), sum);
    drop(other);
    mount.remount();
    assert_eq!(shell(&dir, "sha256sum < b"), sum);
}
