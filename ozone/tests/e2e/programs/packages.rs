//! dpkg, into a root of its own on the mount.

use crate::harness::sides::Sides;

/// A root in which a shell runs, made of the machine's own, and an empty database of packages.
const ROOT: &str = r#"
    export PATH=$PATH:/usr/sbin:/sbin
    mkdir -p root/var/lib/dpkg/info root/var/lib/dpkg/updates root/var/log root/tmp root/usr/bin root/usr/lib
    mkdir -p root/usr/lib64 root/usr/sbin root/etc; ln -s usr/bin usr/lib usr/lib64 usr/sbin root/
    : > root/var/lib/dpkg/status; : > root/var/lib/dpkg/available
    for p in sh cat ls ln rm mkdir; do
        from=$(readlink -f $(command -v $p)); cp $from root/usr/bin/$p
        for lib in $(ldd $from | grep -o '/[^ ]*'); do
            mkdir -p root$(dirname $lib); [ -e root$lib ] || cp -L $lib root$lib
        done
    done
    [ "$(chroot root /bin/sh -c 'echo $((6 * 7)); ls /usr')" = "$(printf '42\nbin\nlib\nlib64\nsbin')" ]
"#;

/// Two versions of a package with a configuration file, scripts, links and a diversion of itself.
const PACKAGES: &str = r#"
    mkdir -p p/DEBIAN p/usr/share/many p/usr/bin p/etc; cd p
    printf 'Package: many\nVersion: 1\nArchitecture: all\nMaintainer: a <a@b>\nDescription: x\n' > DEBIAN/control
    echo /etc/many.conf > DEBIAN/conffiles; echo setting=1 > etc/many.conf
    printf '#!/bin/sh\nset -e\ncat /etc/many.conf > /var/log/configured\necho "$@" >> /var/log/configured\n' > DEBIAN/postinst
    printf '#!/bin/sh\necho removing "$1"; rm -f /var/log/configured\n' > DEBIAN/prerm
    chmod 755 DEBIAN/postinst DEBIAN/prerm
    for i in $(seq 60); do echo file $i > usr/share/many/$i; done
    ln usr/share/many/1 usr/share/many/hard; ln -s ../share/many/1 usr/bin/link
    printf '#!/bin/sh\n' > usr/bin/run; chmod 4755 usr/bin/run
    cd ..; find p -exec touch -h -d 2020-01-01 {} +; dpkg-deb --root-owner-group -b p many1.deb
    cd p; sed -i 's/Version: 1/Version: 2/' DEBIAN/control; rm usr/share/many/7; echo new > usr/share/many/8
    rm usr/bin/link; mkdir usr/bin/link; echo now a directory > usr/bin/link/x; echo setting=2 > etc/many.conf
    cd ..; find p -exec touch -h -d 2020-01-01 {} +; dpkg-deb --root-owner-group -b p many2.deb
    dpkg-deb -c many2.deb | awk '{print $1, $2, $3, $6, $7, $8}'
"#;

/// All of the root but what carries the time of the day.
const SHOW: &str = r#"
    find root \( -type d -printf '%P %M\n' -o -printf '%P %M %U:%G %n %s %l\n' \) | grep -v var/log/dpkg.log | LC_ALL=C sort
    find root -type f ! -name dpkg.log -print0 | LC_ALL=C sort -z | xargs -0 sha256sum
"#;

#[test]
fn dpkg_installs_upgrades_and_removes_in_a_chroot() {
    let mut sides = Sides::start(&["dpkg", "dpkg-deb", "chroot", "ldconfig", "start-stop-daemon"]);
    sides.same(ROOT);
    sides.same(PACKAGES);
    let dpkg = "export PATH=$PATH:/usr/sbin:/sbin; dpkg=\"dpkg --root=$PWD/root --force-confold\"; \
        ours() { sed \"s#$PWD##g\"; }";
    sides.same(&format!(
        "{dpkg}; $dpkg -i many1.deb 2>&1 | ours; $dpkg -V many; cat root/var/log/configured; {SHOW}"
    ));
    sides.mount.remount();
    sides.same(&format!(
        "{dpkg}; echo local >> root/etc/many.conf; $dpkg -i many2.deb 2>&1 | ours; $dpkg -s many; $dpkg -L many
         cat root/etc/many.conf root/var/log/configured root/usr/bin/link/x; $dpkg -V many || :; {SHOW}"
    ));
    sides.same(&format!("{dpkg}; $dpkg -P many 2>&1 | ours; $dpkg -l many 2>&1 || :; {SHOW}"));
}
