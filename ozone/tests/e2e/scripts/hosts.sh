# Three hosts as network namespaces, with the commands of README.md: installed, started, mounted by
# mount(8) and from /etc/fstab; then one machine's cable is pulled. Runs in namespaces of its own
# (mount, network, processes), so that nothing of it outlives the script or is seen outside.
#
# Arguments: the binary, the folder with README.md's blocks, a folder for data.
set -euo pipefail
binary=$1 blocks=$2 data=$3

say() { echo "== $*"; }
die() { echo "FAILED: $*" >&2; exit 1; }
# Until a command succeeds; a minute is longer than anything here takes.
await() {
    local what=$1 end=$((SECONDS + 60)); shift
    until "$@" > /dev/null 2>&1; do
        [ $SECONDS -lt $end ] || die "waited in vain for $what: $("$@" 2>&1 | tail -n 20)"
        sleep 0.1
    done
}

. "$(dirname "$0")/private.sh"
mkdir "$data/private"
private "$data/private" /etc /usr/sbin /usr/local/bin
mount -t tmpfs tmpfs /run
printf '127.0.0.1 localhost\n' > /etc/hosts
for n in 1 2 3; do echo "10.77.0.$n host$n" >> /etc/hosts; done
# The block installs what cargo built.
mkdir -p "$data/source/target/release"
ln -s "$binary" "$data/source/target/release/ozone"
(cd "$data/source" && bash -e "$blocks/install")

ip link add br0 type bridge
ip link set br0 up
declare -A host
apart() { [ "$(readlink /proc/self/ns/net)" != "$(readlink "/proc/$1/ns/net")" ]; }
for n in 1 2 3; do
    mkdir -p "$data/host$n"/{lib,srv}
    unshare --net --uts --mount sleep infinity &
    host[host$n]=$!
    # Only in its own namespaces.
    await "host$n" apart $!
    ip link add "host$n" type veth peer name eth0 netns $!
    ip link set "host$n" master br0 up
    nsenter --target $! --net --uts --mount bash -euo pipefail -c "
        echo host$n > /proc/sys/kernel/hostname
        ip link set lo up; ip link set eth0 up; ip addr add 10.77.0.$n/24 dev eth0
        mount --bind '$data/host$n/lib' /var/lib
        mount --bind '$data/host$n/srv' /srv"
done
on() { local where=$1; shift; nsenter --target "${host[$where]}" --net --uts --mount "$@"; }

say "the daemons, in README's order"
while read -r line; do
    on host1 bash -c "exec $line" >> "$data/host1.log" 2>&1 &
done < "$blocks/books"
for n in 1 2 3; do
    on host$n bash -c "exec $(cat "$blocks/blockd")" >> "$data/host$n.log" 2>&1 &
done

say "the bucket and the mount, from host2"
three_healthy() { [ "$(on host2 ozone admin status --metad host1:9862 --containerd host1:9860 | grep -c ' healthy ')" = "$1" ]; }
await "three block servers" three_healthy 3
on host2 bash -e "$blocks/client"
on host2 findmnt --noheadings --types fuse.ozone /mnt
on host2 bash -e -c 'mkdir /mnt/dir && echo hello > /mnt/dir/file && sync /mnt/dir/file'

say "host3, from /etc/fstab"
cp "$blocks/fstab" /etc/fstab
on host3 mount --all --types fuse.ozone
[ "$(on host3 cat /mnt/dir/file)" = hello ] || die "host3 reads something else"
on host3 findmnt --noheadings --types fuse.ozone /mnt
on host3 umount /mnt
on host3 findmnt --types fuse.ozone /mnt && die "still mounted"
mkdir -p /etc/ozone
cp "$blocks/toml" /etc/ozone/ozone.toml
on host3 mount -t fuse.ozone -o noatime,nosuid,nodev /vol1/bucket1 /mnt
[ "$(on host3 cat /mnt/dir/file)" = hello ] || die "host3 reads something else"

say "host2's cable is pulled while host3 writes"
mkdir "$data/acknowledged"
on host3 bash -euo pipefail -c "
    for n in \$(seq 1 100000); do
        [ ! -e '$data/stop' ] || exit 0
        echo \"record \$n\" > /mnt/dir/\$n
        sync /mnt/dir/\$n
        echo \$n > '$data/acknowledged/last'
    done" &
writer=$!
last() { cat "$data/acknowledged/last" 2> /dev/null || echo 0; }
further() { [ "$(last)" -ge "$1" ]; }
await "the writer to begin" further 20
ip link set host2 down
await "the writer to go on with two replicas" further $(($(last) + 100))
noticed() { ! on host3 ozone admin status --metad host1:9862 --containerd host1:9860 | grep host2 | grep -q ' healthy '; }
await "somebody to notice" noticed
ip link set host2 up
back() { [ "$(on host3 ozone admin status --metad host1:9862 --containerd host1:9860 | grep -c ' healthy ')" = 3 ]; }
await "host2 to be back" back
touch "$data/stop"
wait $writer || die "the writer saw an error"
count=$(last)
for n in $(seq 1 "$count"); do
    [ "$(on host3 cat "/mnt/dir/$n")" = "record $n" ] || die "record $n is not there"
done
say "$count records, all there"

say "host2's mount, cut off for a while, is right again"
[ "$(on host2 cat "/mnt/dir/$count")" = "record $count" ] || die "host2 reads something else"
on host2 umount /mnt
on host3 umount /mnt
say "done"
