# Installs the Debian package on this machine, whose system folders are private for that, and removes it.
#
# Arguments: the package, a folder for what is written.
set -euo pipefail
package=$1 data=$2

. "$(dirname "$0")/private.sh"
die() { echo "FAILED: $*" >&2; exit 1; }
mkdir "$data/private"
private "$data/private" /etc /usr /var
# Without a systemd, as in a container.
mount -t tmpfs tmpfs /run

dpkg --install "$package"
[ "$(dpkg --verify ozone-fs)" = "" ] || die "dpkg misses something"
[ "$(getent passwd ozone | cut -d: -f6)" = /var/lib/ozone ] || die "no user"
ozone --version
[ "$(mount.fuse.ozone --help | head -c 6)" = usage: ] || die "no helper"
man --where ozone-metad mount.fuse.ozone ozone-sh-key-put
units="ozone-metad.service ozone-containerd.service ozone-blockd.service"
# It warns without failing.
said=$(systemd-analyze verify $units 2>&1) || die "$said"
[ "$said" = "" ] || die "$said"
cp /usr/share/doc/ozone-fs/examples/mnt-ozone.mount /etc/systemd/system/
said=$(systemd-analyze verify /etc/systemd/system/mnt-ozone.mount 2>&1) || die "$said"
[ "$said" = "" ] || die "$said"
# As on a machine's first start: nothing that comes with the package is switched on.
systemctl preset $units
for unit in $units; do
    [ "$(systemctl is-enabled $unit)" = disabled ] || die "$unit is enabled"
done

# Settings stay with `remove`, and are gone with `purge`; data stay.
mkdir -p /var/lib/ozone/metad
systemctl enable ozone-metad
link=/etc/systemd/system/multi-user.target.wants/ozone-metad.service
[ -L $link ] || die "the unit was not enabled"
echo 'metad = ["host1"]' >> /etc/ozone/ozone.toml
dpkg --install "$package"
tail -n 1 /etc/ozone/ozone.toml | grep -q host1 || die "settings were replaced"
dpkg --remove ozone-fs
[ -e /etc/ozone/ozone.toml ] || die "settings are gone"
[ ! -e /usr/sbin/mount.fuse.ozone ] || die "the helper is still there"
dpkg --purge ozone-fs
[ ! -e /etc/ozone/ozone.toml ] || die "settings are still there"
[ ! -L $link ] || die "the unit is still enabled"
[ -d /var/lib/ozone/metad ] || die "data are gone"
echo "== done"
