#!/bin/sh
# Become PID 1 of a Debian tree:  boot.sh TREE ROOM HOST CGROUP [SOURCE TARGET]...
# To be run in new PID, mount, UTS, IPC and network namespaces. TREE stays as it is: what is written goes to memory, mounted
# on the directory ROOM. HOST is a directory that both sides see, as /run/host; systemd tells of itself on its socket
# `notify`. Each SOURCE is seen, read-only, as TARGET. All mounts go with the namespace.
set -eu

if [ "$1" != inside ]; then
    # Into its own control group before a namespace makes that the root of all it can see.
    echo 0 >"$4/cgroup.procs"
    exec unshare --cgroup -- sh "$0" inside "$@"
fi
tree=$2 room=$3 host=$4 root=$3/root
shift 5

mount --make-rprivate /
mount -t tmpfs -o mode=0755 tmpfs "$room"
mkdir "$room/upper" "$room/work" "$root"
mount -t overlay -o "lowerdir=$tree,upperdir=$room/upper,workdir=$room/work" overlay "$root"

mount -t proc -o nosuid,nodev,noexec proc "$root/proc"
mount -t sysfs -o nosuid,nodev,noexec,ro sysfs "$root/sys"
mount -t cgroup2 -o nosuid,nodev,noexec cgroup2 "$root/sys/fs/cgroup"
mount -t tmpfs -o nosuid,nodev,mode=0755 tmpfs "$root/run"
mount -t tmpfs -o nosuid,nodev,mode=1777 tmpfs "$root/tmp"

mount -t tmpfs -o nosuid,mode=0755 tmpfs "$root/dev"
mkdir "$root/dev/pts" "$root/dev/shm"
mount -t devpts -o nosuid,noexec,newinstance,ptmxmode=0666,mode=0620,gid=5 devpts "$root/dev/pts"
mount -t tmpfs -o nosuid,nodev,mode=1777 tmpfs "$root/dev/shm"
ln -s pts/ptmx "$root/dev/ptmx"
ln -s /proc/self/fd "$root/dev/fd"
ln -s /proc/self/fd/0 "$root/dev/stdin"
ln -s /proc/self/fd/1 "$root/dev/stdout"
ln -s /proc/self/fd/2 "$root/dev/stderr"
for name in null zero full random urandom tty; do
    : >"$root/dev/$name"
    mount --bind "/dev/$name" "$root/dev/$name"
done

mkdir "$root/run/host"
mount --bind "$host" "$root/run/host"
while [ $# -gt 0 ]; do
    if [ -d "$1" ]; then
        mkdir -p "$root$2"
    else
        mkdir -p "$(dirname "$root$2")"
        : >"$root$2"
    fi
    mount --bind "$1" "$root$2"
    mount -o remount,bind,ro "$root$2"
    shift 2
done

mkdir "$root/run/outside"
cd "$root"
pivot_root . run/outside
umount -l /run/outside
rmdir /run/outside
exec env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin container=lxc NOTIFY_SOCKET=/run/host/notify /lib/systemd/systemd
