# quickstart as an ordinary user, with fusermount3. Runs in a mount namespace of its own, where
# /dev/fuse is open to everybody, as udev makes it.
#
# Arguments: the binary, a folder that the user may enter.
set -euo pipefail
binary=$1 data=$2
die() { echo "FAILED: $*" >&2; exit 1; }

mount --make-rprivate /
ip link set lo up
install -m 755 "$binary" "$data/ozone"
mkdir "$data/home"
chown nobody: "$data/home"
mknod "$data/fuse" c 10 229
chmod 666 "$data/fuse"
mount --bind "$data/fuse" /dev/fuse

as_user() {
    setpriv --reuid nobody --regid nogroup --clear-groups env -u XDG_RUNTIME_DIR -u XDG_DATA_HOME \
        HOME="$data/home" TMPDIR="$data/home" PATH="$data:$PATH" "$@"
}
cd "$data/home"
as_user ozone quickstart "$data/home/mnt" --detach
as_user findmnt --noheadings --types fuse.ozone "$data/home/mnt"
as_user bash -e -c 'echo hello > mnt/a; mkdir mnt/d; mv mnt/a mnt/d/b; ln mnt/d/b mnt/c; sync mnt/c'
[ "$(as_user stat -c %U mnt/c)" = nobody ] || die "another owner"
as_user ozone quickstart --stop "$data/home/mnt"
[ -z "$(ls mnt)" ] || die "still mounted"
[ -d "$data/home/.local/share/ozone/quickstart" ] || die "the data lies elsewhere"
as_user ozone quickstart "$data/home/mnt" --detach
[ "$(as_user cat mnt/d/b)" = hello ] || die "the data is gone"
as_user ozone quickstart --stop "$data/home/mnt"
