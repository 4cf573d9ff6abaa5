#!/bin/bash
# Boots this machine's own systemd as pid 1 of new namespaces, and takes it away again.
#
#	systemd.sh guard DIR   boots it, prints "up PID", and lives until its standard input ends; then kills
#	                       it and removes DIR. Whoever holds the other end of that pipe may be killed.
#	systemd.sh first DIR   is what guard starts inside; it becomes pid 1
#
# GAPLESS_LAB_ROOT is another root directory than this machine's, with another version of systemd in it.
#
# DIR is a new directory, and its last part the machine's name. DIR/share is /srv/share inside. Everything else is a
# view of this machine's files that can be written to (overlayfs over a tmpfs, gone with the mount namespace), its own
# network with a loopback device, and a cgroup below the caller's. Nothing else of this machine can be changed from
# inside: no kernel setting, no device, no clock. Needs root, util-linux, a kernel with cgroup v2 and overlayfs.
set -eu
verb=$1 dir=$2 name=${2##*/}
PATH=/usr/sbin:/usr/bin:/sbin:/bin

# --- inside ---------------------------------------------------------------------------------------------------------

# view makes the file system that pid 1 is to see, at $1.
view() {
	mkdir "$dir/layers"
	mount -t tmpfs -o mode=755 layers "$dir/layers"
	mkdir "$dir/layers/changed" "$dir/layers/work"
	mount -t overlay -o "lowerdir=${GAPLESS_LAB_ROOT:-/},upperdir=$dir/layers/changed,workdir=$dir/layers/work" root "$1"
}

# strip takes away what would start by itself: the machine's own services, and of systemd's all but the journal. What
# is tested pulls in sysinit.target, and these directories are all that this pulls in.
strip() {
	local units=$1/usr/lib/systemd/system
	[ -d "$units" ] || units=$1/lib/systemd/system
	rm -rf "$1"/etc/systemd/system/*.{wants,requires} "$units"/*.wants "$1"/{usr/lib,lib,etc}/systemd/system-generators
	mkdir -p "$1/etc/systemd/system/sysinit.target.wants" "$1/etc/systemd/journald.conf.d" "$1/srv/share"
	ln -s "${units#"$1"}/systemd-journald.service" "$1/etc/systemd/system/sysinit.target.wants/"
	printf '[Journal]\nStorage=volatile\nAudit=\nForwardToWall=no\nRateLimitBurst=0\n' >"$1/etc/systemd/journald.conf.d/lab.conf"
	: >"$1/etc/fstab"
	tr -d - </proc/sys/kernel/random/uuid >"$1/etc/machine-id"
}

# kernel mounts what the kernel shows of itself, without a way to change it.
kernel() {
	mount -t proc -o nosuid,nodev,noexec proc "$1/proc"
	mount --bind "$1/proc/sys" "$1/proc/sys"
	mount -o remount,bind,ro "$1/proc/sys"
	[ ! -e "$1/proc/sysrq-trigger" ] || mount --bind /dev/null "$1/proc/sysrq-trigger"
	mount -t sysfs -o nosuid,nodev,noexec,ro sysfs "$1/sys"
	mount -t cgroup2 -o nosuid,nodev,noexec cgroup2 "$1/sys/fs/cgroup" # of our cgroup namespace: just our part
}

# devices are those that can do no harm.
devices() {
	mount -t tmpfs -o mode=755,nosuid dev "$1/dev"
	cp -a /dev/{null,zero,full,random,urandom,tty} "$1/dev/"
	mkdir "$1/dev/pts" "$1/dev/shm"
	mount -t devpts -o newinstance,ptmxmode=0666 devpts "$1/dev/pts"
	ln -s pts/ptmx "$1/dev/ptmx"
	ln -s /proc/self/fd "$1/dev/fd"
}

first() {
	local root=$dir/root volatile
	mkdir "$root"
	read -r pid _ </proc/self/stat # of the outer /proc: our pid as the guard knows it
	mount --make-rprivate /
	view "$root"
	strip "$root"
	kernel "$root"
	devices "$root"
	for volatile in dev/shm run tmp var/tmp; do
		mount -t tmpfs -o nosuid,nodev "$volatile" "$root/$volatile"
	done
	chmod 755 "$root/run"
	mount --bind "$dir/share" "$root/srv/share"
	cd "$root"
	mkdir run/outer
	echo "$pid" >"$dir/pid"
	pivot_root . run/outer
	umount -l run/outer
	rmdir run/outer
	mount --make-rshared /
	exec env -i container=lab PATH="$PATH" LANG=C.UTF-8 \
		/lib/systemd/systemd --unit=multi-user.target --log-target=console --show-status=no
}

# --- outside --------------------------------------------------------------------------------------------------------

# own is the caller's cgroup below the mount; ours is made in it.
own() { sed -n 's/^0:://p' /proc/self/cgroup; }

boot() {
	mkdir "$dir/cgroups" "$dir/share"
	mount -t cgroup2 cgroup2 "$dir/cgroups"
	mkdir "$cgroup"
	(
		echo "$BASHPID" >"$cgroup/cgroup.procs" # the cgroup namespace begins where its maker is
		exec unshare --fork --kill-child --pid --mount --uts --ipc --cgroup --net bash "$0" first "$dir"
	) </dev/null >"$dir/console" 2>&1 &
	child=$!
}

# wait_until_up: within a minute it has started all there is to start.
wait_until_up() {
	local state=unknown tries
	for tries in {1..600}; do
		kill -0 $child 2>/dev/null || return 1
		if [ -s "$dir/pid" ]; then
			state=$(nsenter -t "$(cat "$dir/pid")" -a -- systemctl is-system-running 2>/dev/null || true)
		fi
		case $state in
		running) return 0 ;;
		degraded) nsenter -t "$(cat "$dir/pid")" -a -- systemctl --failed --no-legend; return 1 ;;
		esac
		sleep 0.1
	done >>"$dir/console"
	return 1
}

# clean kills pid 1, and so the kernel kills all that lives with it; their ends are waited for.
clean() {
	trap '' INT TERM HUP
	kill -KILL "$(cat "$dir/pid")" 2>/dev/null || kill -KILL $child 2>/dev/null || true
	wait $child 2>/dev/null || true
	local tries
	for tries in {1..100}; do # the last of them may still be on their way out
		find "$cgroup" -depth -type d -exec rmdir {} + 2>/dev/null || true
		[ -d "$cgroup" ] || break
		sleep 0.1
	done
	umount "$dir/cgroups"
	rm -rf --one-file-system "$dir"
}

guard() {
	child='' cgroup=$dir/cgroups$(own)/$name
	trap clean EXIT
	trap 'exit 1' INT TERM HUP
	boot
	if ! wait_until_up; then
		echo "systemd did not come up:" >&2
		tail -n 20 "$dir/console" >&2
		exit 1
	fi
	nsenter -t "$(cat "$dir/pid")" -a -- systemctl log-target journal >&2 # what it says of units stands there, beside theirs
	echo "up $(cat "$dir/pid")"
	exec >&-
	read -r _ || true
}

case $verb in
first) first ;;
guard)
	# The mounts of ours are nobody else's.
	[ "${3:-}" = alone ] || exec unshare --mount --propagation private bash "$0" guard "$dir" alone
	guard
	;;
esac
