# Becomes the first process of one machine: namespaces of its own (mount, network, host name, processes,
# control groups), private system folders, and systemd. Started by operations.sh.
#
# Arguments: the machine's name, its address, a folder for what it writes.
set -euo pipefail
name=$1 address=$2 data=$3

. "$(dirname "$0")/private.sh"
# Until the cable is there.
read -r < "$data/wired"
echo "$name" > /proc/sys/kernel/hostname
ip link set lo up
ip link set eth0 up
ip addr add "$address/24" dev eth0

mkdir "$data/private"
private "$data/private" /etc /usr /var /srv /mnt /root
for dir in /run /tmp; do mount -t tmpfs -o mode=1777 tmpfs $dir; done
# Devices: those that every container has, and FUSE.
mount -t tmpfs -o mode=755 tmpfs /dev
while read -r device major minor; do mknod -m 666 "/dev/$device" c "$major" "$minor"; done << END
null 1 3
zero 1 5
full 1 7
random 1 8
urandom 1 9
tty 5 0
fuse 10 229
END
mkdir /dev/pts /dev/shm
mount -t devpts -o newinstance,ptmxmode=666 devpts /dev/pts
ln -s pts/ptmx /dev/ptmx
ln -s /proc/self/fd /dev/fd
mount -t tmpfs tmpfs /dev/shm
mount -t cgroup2 cgroup2 /sys/fs/cgroup

# A machine with nothing on it but its log: what else is installed here does not start.
find /etc/systemd/system /usr/lib/systemd/system -path '*.wants/*' -delete
for socket in systemd-journald systemd-journald-dev-log; do
    mkdir -p /etc/systemd/system/sockets.target.wants
    ln -s "/usr/lib/systemd/system/$socket.socket" /etc/systemd/system/sockets.target.wants/
done
# The index of all pages of the manual, anew at every installation, takes longer than all the rest.
rm -f /var/lib/man-db/auto-update
tr -d - < /proc/sys/kernel/random/uuid > /etc/machine-id
echo "$name" > /etc/hostname
: > /etc/fstab
printf '127.0.0.1 localhost\n' > /etc/hosts
rm -rf /etc/ozone /var/lib/ozone
# As at a real boot: what is unmounted is so for the services too, whose mount namespaces are their own.
mount --make-rshared /
container=ozone-test exec /lib/systemd/systemd --unit=multi-user.target --log-target=journal --show-status=0
