#!/busybox sh
# The first process of the virtual machine. It lays out a root file system over the host's own, and hands over to
# main.sh. `/variables`, written for each run, says:
#   name       the machine's name
#   project    the project's directory
#   modules    where the host keeps this kernel's modules
#   shares     numbers of the directories that the guest may write to; share_N is the path of one

# Says why on the console, and ends the machine; the host takes the console's end for the reason. Both file systems move
# below /new on the way.
fail() {
    for place in "" /new; do
        [ -c "$place/dev/console" ] && echo "xtask vm: $*" >"$place/dev/console"
        [ -w "$place/proc/sysrq-trigger" ] && echo b >"$place/proc/sysrq-trigger"
    done
    sleep 3600
}

# mount TARGET ARGS...: makes the directory first.
mount_at() {
    target=$1
    shift
    mkdir -p "$target" && mount "$@" "$target" || fail "could not mount $target"
}

# A directory that the host exports under a tag. 9p's default message of 8 KiB makes every file slow.
host_directory() {
    mount_at "$1" -t 9p -o "trans=virtio,version=9p2000.L,msize=512000,$3" "$2"
}

/busybox mkdir /bin /proc
/busybox mount -t proc proc /proc
/busybox --install -s /bin
export PATH=/bin
mount_at /sys -t sysfs sysfs
mount_at /dev -t devtmpfs devtmpfs
. /variables
for module in /modules/*.ko; do
    insmod "$module" || fail "could not load $module"
done

# The host's files, which nobody changes through this: QEMU exports them read-only. What the guest writes stays in its
# memory. `loose` trusts the cache without asking the host again; the host's programs do not change during a run.
host_directory /host root cache=loose,ro
mount_at /memory -t tmpfs tmpfs
mkdir /memory/upper /memory/work
mount_at /new -t overlay -o lowerdir=/host,upperdir=/memory/upper,workdir=/memory/work overlay

# The project may lie in /tmp, which is about to be covered.
mount_at /keep/project --bind "/new$project"
mount_at /keep/modules --bind "/new$modules"
for directory in /run /tmp /var/tmp; do
    mount_at "/new$directory" -t tmpfs tmpfs
done
chmod 1777 /new/tmp /new/var/tmp
mkdir -p /new/run/lock
# Without a cache: what the guest writes is in the host's file when the call returns.
host_directory /new/run/vm run cache=none
mount_at "/new$project" --move /keep/project
mount_at "/new/lib/modules/$(uname -r)" --move /keep/modules
for number in $shares; do
    eval "path=\$share_$number"
    # `mmap` is what running a program from there needs; it asks the host for names and sizes each time.
    host_directory "/new$path" "share$number" cache=mmap
done

mount_at /new/proc --move /proc
mount_at /new/sys --move /sys
mount_at /new/dev --move /dev
mount_at /new/dev/pts -t devpts -o gid=5,mode=620,ptmxmode=666 devpts
mount_at /new/dev/shm -t tmpfs tmpfs
ln -s /proc/self/fd /new/dev/fd
ln -s /proc/self/fd/0 /new/dev/stdin
ln -s /proc/self/fd/1 /new/dev/stdout
ln -s /proc/self/fd/2 /new/dev/stderr
mount_at /new/sys/fs/cgroup -t cgroup2 cgroup2
mount_at /new/sys/fs/bpf -t bpf bpf
mount_at /new/sys/kernel/debug -t debugfs debugfs
mount_at /new/sys/kernel/tracing -t tracefs tracefs
# As systemd has it: what is mounted later is seen in namespaces that were made before.
mount --make-rshared /new

hostname "$name"
ifconfig lo up
exec switch_root /new /bin/sh /run/vm/main.sh
