# What up-ozone.sh and down-ozone.sh share. Sourced; needs SHARED_BENCH, the yardstick's folder.
NAME=ozone
. "$SHARED_BENCH/peers/lib.sh"
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
OZONE=${OZONE:-${CARGO_TARGET_DIR:-$HERE/target}/release/ozone}
METAD=127.0.0.1:19862
CONTAINERD=127.0.0.1:19860
SOURCE=$METAD:/vol1/bucket1

start_client() {
    spawn client "$OZONE" mount "$SOURCE" "$MNT" -o "memory=${OZONE_MEMORY:-512M}" --log-level "${OZONE_LOG:-warn}"
    wait_mounted "$MNT"
}

# umount flushes; the client process ends when everything is on the servers.
stop_client() {
    local pid
    pid=$(awk '$2=="client"{print $1}' "$PIDS" 2>/dev/null | tail -n 1)
    umount_wait "$MNT"
    if [ -n "$pid" ]; then
        for _ in $(seq 1 600); do [ -d "/proc/$pid" ] || break; sleep 0.05; done
    fi
    forget_role client
}
