package bind

import (
	"runtime"

	"golang.org/x/sys/unix"
)

// Offsets in struct seccomp_data of linux/seccomp.h.
const (
	offsetNr   = 0
	offsetArch = 4
)

// auditArch is what the kernel calls a system call by this build's numbers
// (linux/audit.h).
func auditArch() (uint32, bool) {
	switch runtime.GOARCH {
	case "amd64":
		return unix.AUDIT_ARCH_X86_64, true
	case "arm64":
		return unix.AUDIT_ARCH_AARCH64, true
	}
	return 0, false
}

// program notifies of bind(2) and listen(2) by the numbers of arch, and allows all
// else. The kernel calls x32 by the name of x86-64 and adds a bit to its numbers
// (__X32_SYSCALL_BIT of asm/unistd.h), so those are not equal to ours.
func program(arch uint32) []unix.SockFilter {
	const load, equal, ret = unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, unix.BPF_RET | unix.BPF_K
	return []unix.SockFilter{
		{Code: load, K: offsetArch},
		{Code: equal, Jf: 3, K: arch},
		{Code: load, K: offsetNr},
		{Code: equal, Jt: 2, K: unix.SYS_BIND},
		{Code: equal, Jt: 1, K: unix.SYS_LISTEN},
		{Code: ret, K: unix.SECCOMP_RET_ALLOW},
		{Code: ret, K: unix.SECCOMP_RET_USER_NOTIF},
	}
}
