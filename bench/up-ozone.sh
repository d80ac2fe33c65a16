#!/bin/bash
# up-ozone.sh [remount]: a fresh cluster of one metad, one containerd and three blockds as processes
# of their own, a bucket with three replicas, default durability, mounted on $MNT; or, with
# `remount`, only a new mount of the running one. Ports 198xx, so that a cluster may run beside it.
. "$(dirname "$0")/lib-ozone.sh"
if [ "${1:-}" = remount ]; then
    stop_client
    start_client
    exit
fi
[ -x "$OZONE" ] || (cd "$HERE" && cargo build --release --package ozone) || exit 1
rm -rf "$DATA"; mkdir -p "$DATA" "$MNT"; : > "$PIDS"
LOG=(--log-level "${OZONE_LOG:-warn}")
spawn containerd "$OZONE" containerd --data-dir "$DATA/containerd" --listen $CONTAINERD \
    --raft-listen 127.0.0.1:19894 --http-listen 127.0.0.1:19876 "${LOG[@]}"
spawn metad "$OZONE" metad --data-dir "$DATA/metad" --listen $METAD --containerd $CONTAINERD \
    --raft-listen 127.0.0.1:19872 --http-listen 127.0.0.1:19874 "${LOG[@]}"
for n in 1 2 3; do
    spawn blockd$n "$OZONE" blockd --data-dir "$DATA/blockd$n" --listen 127.0.0.1:1985$n \
        --containerd $CONTAINERD --http-listen 127.0.0.1:1988$n "${LOG[@]}"
done
export OZONE_METAD=$METAD OZONE_CONTAINERD=$CONTAINERD
"$OZONE" sh volume create /vol1 && "$OZONE" sh bucket create /vol1/bucket1 || exit 1
# Writing begins when all three block servers have registered.
for _ in $(seq 1 100); do
    [ "$("$OZONE" admin status | grep -c healthy)" = 3 ] && break
    sleep 0.1
done
start_client
