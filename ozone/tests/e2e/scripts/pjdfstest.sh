# pjdfstest on a mount, with the users and the mount helper that it needs. Runs in a mount namespace
# of its own, so that the machine's accounts and programs stay as they are.
#
# Arguments: pjdfstest, its configuration, the mount, the binary, a folder for data; then pjdfstest's
# own.
set -euo pipefail
program=$1 config=$2 target=$3 binary=$4 data=$5
shift 5

mount --make-rprivate /
# A second user beside nobody.
for file in passwd group; do cp "/etc/$file" "$data/$file"; done
echo 'ozonetest:x:40100:40100::/:/bin/false' >> "$data/passwd"
echo 'ozonetest:x:40100:' >> "$data/group"
for file in passwd group; do mount --bind "$data/$file" "/etc/$file"; done
# mount(8) finds its helper for `-o remount`.
mkdir "$data/sbin"
for entry in /usr/sbin/*; do ln -s "$data/real/${entry##*/}" "$data/sbin/"; done
ln -sf "$binary" "$data/sbin/mount.fuse.ozone"
mkdir "$data/real"
mount --bind /usr/sbin "$data/real"
mount --bind "$data/sbin" /usr/sbin
# Another filesystem, for links and renames that must not cross.
mkdir "$data/other"
mount -t tmpfs -o mode=755 tmpfs "$data/other"

exec "$program" --configuration-file "$config" --path "$target" --secondary-fs "$data/other" "$@"
