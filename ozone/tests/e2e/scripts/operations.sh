# The commands of docs/OPERATIONS.md, in its order, on machines that are namespaces with a systemd of
# their own. Runs in namespaces itself (mount, network, processes), so that nothing of it outlives the
# script or is seen outside.
#
# Arguments: a folder with the blocks (NUMBER.HOST, to be run in the order of their numbers), the Debian
# package, a folder for data, a control group for the machines.
set -euo pipefail
blocks=$1 package=$2 data=$3 group=$4
scripts=$(dirname "$0")

say() { echo "== $*"; }
begun() { say "$SECONDS s: $*"; }
die() { echo "FAILED: $*" >&2; exit 1; }
# Until a command succeeds; a minute is longer than anything here takes.
await() {
    local what=$1 end=$((SECONDS + 60)); shift
    until "$@" > /dev/null 2>&1; do
        [ $SECONDS -lt $end ] || die "waited in vain for $what: $("$@" 2>&1 | tail -n 20)"
        sleep 0.1
    done
}

hosts="host1 host2 host3 host4"
ip link add br0 type bridge
ip link set br0 up
declare -A init
on() {
    local where=$1; shift
    nsenter --target "${init[$where]}" --all --wdns=/root -- \
        env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin HOME=/root "$@"
}
# The first process of a machine, once it is in its own namespaces, which unshare's child is from its start.
first_process() {
    local first
    first=$(cat "/proc/$2/task/$2/children") && init[$1]=${first// } && [ -n "${init[$1]}" ] &&
        [ "$(readlink /proc/self/ns/net)" != "$(readlink "/proc/${init[$1]}/ns/net")" ]
}
booted() { on "$1" systemctl is-system-running --quiet || { on "$1" systemctl --failed; false; }; }
for host in $hosts; do
    number=${host#host}
    mkdir "$data/$host" "$group/$host"
    mkfifo "$data/$host/wired"
    # The shell becomes a process of the group, which is then the root of the groups that systemd sees.
    bash -c 'echo $$ > "$1/cgroup.procs" && shift && exec "$@"' - "$group/$host" \
        unshare --mount --net --uts --ipc --cgroup --pid --fork --kill-child --mount-proc \
        bash "$scripts/machine.sh" "$host" "10.77.0.$number" "$data/$host" \
        > "$data/$host/console" 2>&1 &
    outer=$!
    await "$host" first_process "$host" $outer
    ip link add "$host" type veth peer name eth0 netns "${init[$host]}"
    ip link set "$host" master br0 up
    echo > "$data/$host/wired"
done
for host in $hosts; do
    await "$host to boot" booted "$host"
    on "$host" sh -c "cat > /root/$(basename "$package")" < "$package"
done

for block in "$blocks"/*; do
    where=${block##*.}
    [ "$where" = each ] && where="host1 host2 host3"
    for host in $where; do
        begun "$(basename "$block") on $host"
        sed 's/^/    /' "$block"
        on "$host" bash -euo pipefail < "$block" || {
            on "$host" journalctl --no-pager --lines 100 >&2
            die "$(basename "$block") on $host"
        }
    done
done
say "afterwards"
[ "$(on host3 cat /mnt/ozone/file)" = hello ] || die "host3 reads something else"
for host in host1 host2 host3; do
    # A server that had been restarted would have failed in between.
    for unit in $(on "$host" systemctl list-unit-files --state enabled --no-legend 'ozone-*' | cut -d' ' -f1); do
        state=$(on "$host" systemctl show "$unit" --property ActiveState,NRestarts,User --value | paste -sd' ')
        echo "$host $unit $state"
        [ "$(tr ' ' '\n' <<< "$state" | sort | paste -sd' ')" = "0 active ozone" ] || die "$unit: $state"
    done
done
on host2 umount /mnt/ozone
on host3 umount /mnt/ozone
on host3 journalctl --identifier ozone-mount --lines 5
say "done"
