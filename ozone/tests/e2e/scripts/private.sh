# Sourced by scripts that run in namespaces of their own (`unshare --mount --pid --fork …`): system
# folders that they may write to.

# Whatever a script writes to the folders, or deletes there, lands in a tmpfs on `work` (an empty
# folder) that goes with the namespace; the real ones are only read.
private() {
    local work=$1 dir
    shift
    # The first process of its own pid namespace is in a mount namespace of its own as well.
    [ $$ = 1 ] || { echo "not in namespaces of its own" >&2; exit 1; }
    mount --make-rprivate /
    mount -t tmpfs -o mode=755 tmpfs "$work"
    for dir in "$@"; do
        mkdir -p "$work/new$dir" "$work/overlay$dir"
        mount -t overlay \
            -o "lowerdir=$dir,upperdir=$work/new$dir,workdir=$work/overlay$dir" overlay "$dir"
    done
}
