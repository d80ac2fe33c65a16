# pjdfstest on a mount, with the users and the mount helper that it needs. Runs in a mount namespace
# of its own, so that the machine's accounts and programs stay as they are.
#
# Arguments: pjdfstest, its configuration, the mount, the binary, a folder for data; then pjdfstest's
# own.
set -euo pipefail
program=$1 config=$2 target=$3 binary=$4 data=$5
shift 5

. "$(dirname "$0")/private.sh"
mkdir "$data/private"
private "$data/private" /etc /usr/sbin
# A second user beside nobody.
echo 'ozonetest:x:40100:40100::/:/bin/false' >> /etc/passwd
echo 'ozonetest:x:40100:' >> /etc/group
# mount(8) finds its helper for `-o remount`.
ln -sf "$binary" /usr/sbin/mount.fuse.ozone
# Another filesystem, for links and renames that must not cross.
mkdir "$data/other"
mount -t tmpfs -o mode=755 tmpfs "$data/other"

exec "$program" --configuration-file "$config" --path "$target" --secondary-fs "$data/other" "$@"
