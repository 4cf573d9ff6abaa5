// Package lab boots a real systemd as pid 1 of namespaces of its own, for tests that
// run gapless under it or beside it. It needs root, Debian's systemd and util-linux,
// and downloads nothing: what runs is this machine's own systemd on a view of this
// machine's own files. How it is made stands in systemd.sh. With GAPLESS_LAB_ROOT in
// the environment it is the systemd and the files of that directory, which may be
// another release, as debootstrap unpacks it.
//
// # Ownership
//
// A [Lab] belongs to whoever booted it, who must close it. Should that process be
// killed instead, the script that guards the lab notices (a pipe breaks) and takes
// all of it away: processes, mounts, cgroups and files. Labs know nothing of each
// other, and any number can run at once.
//
// Nothing outside can be changed from inside: neither kernel settings (/proc/sys is
// read-only), devices, the clock, nor files but those in [Lab.Share].
//
// A test package boots one for all its tests: see [Shared].
package lab
