//! Whole trees: tar, cp, rsync, find, rm, and a directory with very many names.

use crate::harness::shell;
use crate::harness::sides::{Sides, long};
use crate::harness::tree;

#[test]
fn untar_five_thousand_files_and_find_them_again() {
    let mut sides = Sides::start(&["tar", "diff"]);
    let local = sides.local.path().to_owned();
    tree::make(&local.join("tree"), 5000, 1);
    shell(&local, "tar cf tree.tar tree");
    shell(sides.mount.path(), &format!("tar xf {}/tree.tar", local.display()));
    let same = format!("diff -r --no-dereference tree {}/tree", local.display());
    shell(sides.mount.path(), &same);
    sides.mount.remount();
    shell(sides.mount.path(), &same);
    shell(
        sides.mount.path(),
        "cp -a tree copy && diff -r --no-dereference tree copy && rm -rf tree",
    );
    assert_eq!(shell(sides.mount.path(), "ls"), "copy\n");
}

/// Everything that a tree can hold but sockets.
const ZOO: &str = r#"
    mkdir a a/sub a/sub/deep; echo hi > a/f; ln a/f a/hard; ln a/f a/sub/hard; ln -s f a/sym
    ln -s /nowhere/at/all a/sub/broken; ln a/sub/broken a/sub/deep/hardlink-of-a-symlink
    mkfifo a/fifo; mknod a/null c 1 3; mknod a/disk b 7 200; : > a/empty
    printf 'name with spaces\n' > 'a/a b  c'; echo x > $'a/new\nline'; echo y > a/ümläut
    echo z > a/$(printf 'n%.0s' $(seq 255))
    truncate -s 10M a/sparse; printf x | dd of=a/sparse bs=1 seek=5000000 conv=notrunc status=none
    head -c 3000000 /dev/zero | tr '\0' q > a/large
    setfacl -m u:nobody:rw a/f; setfacl -d -m u:nobody:rwx a/sub; setfacl -m g:3:rx a/sub/deep
    setfattr -n user.colour -v blue a/f; setfattr -n user.colour -v red a/sub
    setfattr -n trusted.secret -v x a/f; setfattr -h -n trusted.onlink -v y a/sym
    chown 12:34 a/sparse; chmod 4755 a/sparse; chmod 2775 a/sub/deep; chmod 1777 a; chmod 0 a/empty
    chown -h 56:78 a/sym
    find a -depth -exec touch -h -d '2001-02-03 04:05:06.789012345' {} +
    touch -d '2200-01-01 00:00:00.000000001' a/large; touch -d '1971-01-01 00:00:00.5' a/fifo
"#;

/// A shell function: `show DIR` prints all that is known of the tree DIR/a.
const SHOW: &str = r#"
    show() { (cd $1; find a | LC_ALL=C sort | while IFS= read -r f; do
        [ -e "$f" ] || [ -h "$f" ] || continue
        stat -c '%n %F %a %u:%g %t,%T %y' "$f"
        [ -d "$f" ] || stat -c '%h %s' "$f"
        [ -h "$f" ] && readlink "$f" || getfacl -pcn "$f"
        getfattr -h -m '^user|^trusted' -d "$f"
      done
      find a -type f -print0 | LC_ALL=C sort -z | xargs -0 sha256sum
      find a -samefile a/f | LC_ALL=C sort
      [ $(du -k a/sparse | cut -f 1) -lt 1000 ] && echo sparse) ; }
"#;

#[test]
fn tar_and_rsync_carry_everything() {
    let mut sides = Sides::start(&["tar", "rsync", "setfacl", "setfattr", "getfattr", "find"]);
    sides.same(ZOO);
    sides.same(&format!("{SHOW} show ."));
    let tar = "tar --acls --xattrs --xattrs-include='*' --sparse";
    sides.same(&format!(
        "{SHOW} {tar} -cf t.tar a; mkdir out; {tar} -xpf t.tar -C out; show out
         diff <(show .) <(show out); {tar} -df t.tar"
    ));
    // The second rsync has nothing to do, nor has it after a change was carried over.
    sides.same(&format!(
        "{SHOW} mkdir sync; rsync -aHAXS --devices --specials a sync/; show sync
         diff <(show .) <(show sync)
         [ -z \"$(rsync -aHAXSi --devices --specials --delete a sync/)\" ]
         echo more >> a/large; rm a/sub/hard; setfattr -x user.colour a/sub; mv a/ümläut a/x
         touch -d 2002-02-02 a a/sub a/large
         rsync -aHAXSi --devices --specials --delete a sync/ | LC_ALL=C sort
         [ -z \"$(rsync -aHAXSi --devices --specials --delete a sync/)\" ]
         diff <(show .) <(show sync)"
    ));
    sides.same(&format!(
        "{SHOW} cp -a a copy; mkdir copied; mv copy copied/a; diff <(show .) <(show copied)"
    ));
    sides.mount.remount();
    sides.same(&format!("{SHOW} show .; show out; show sync; show copied"));
    // What one side packed, the other unpacks.
    let packed = sides.local.path().join("t.tar");
    shell(
        sides.mount.path(),
        &format!(
            "{SHOW} mkdir local; {tar} -xpf {} -C local; diff <(show out) <(show local)",
            packed.display()
        ),
    );
}

#[test]
fn rsync_twice_copies_once_and_find_tells_what_is_newer() {
    let mut sides = Sides::start(&["rsync", "find", "diff"]);
    for at in [sides.local.path().to_owned(), sides.mount.path().to_owned()] {
        tree::make(&at.join("src"), 300, 3);
    }
    let said = sides.same(
        "rsync -aHAXS src/ dst/; diff -r --no-dereference src dst
         rsync -aHAXSi src/ dst/
         cp -a src copy; diff -r --no-dereference src copy; rsync -aHAXSic src/ copy/
         touch -d '1 hour ago' stamp; find src dst copy -exec touch -h -r stamp -d '-1 hour' {} +
         [ -z \"$(find src dst copy -newer stamp)\" ]
         echo more >> dst/d00/e03/f33; touch src/d01/e00/f100; mv copy/d00/e00/f1 copy/d00/e00/g1
         chmod 600 copy/d00/e00/f2
         find src dst copy -newer stamp | sort; echo --
         rm -r copy/d01; find copy -name d01; find src -size +200k | wc -l",
    );
    assert!(said.starts_with("copy/d00/e00\ndst/d00/e03/f33\nsrc/d01/e00/f100\n--\n"), "{said}");
    sides.same_files_after_remount();
    sides.same("rm -rf src dst copy stamp; ls -A");
}

/// 10,000 names in one directory; 100,000 in the long form.
#[test]
fn very_many_files_in_one_directory() {
    let many = if long() { 100_000 } else { 10_000 };
    let mut sides = Sides::start(&["python3", "find"]);
    sides.same(&format!(
        "mkdir many; cd many; python3 -c 'for i in range({many}): open(\"file%d\" % i, \"w\").close()'
         ls -f | wc -l; ls | sha256sum; find . -type f | wc -l"
    ));
    sides.mount.remount();
    sides.same("ls -U many | sort | sha256sum; ls -ln many | awk '{print $1, $2, $3, $4, $5, $9}' | sha256sum");
    // Removed by a program that lists as it removes, half of it by another pattern first.
    sides.same("find many -name '*[02468]' -delete; ls many | sha256sum; rm -rf many; ls -A");
}
