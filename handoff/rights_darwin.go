package handoff

import (
	"syscall"

	"golang.org/x/sys/unix"
)

func streamPair() ([2]int, error) {
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	if err == nil {
		unix.CloseOnExec(fds[0])
		unix.CloseOnExec(fds[1])
	}
	return fds, err
}

func peerCredentials(fd int) (Credentials, error) {
	u, err := unix.GetsockoptXucred(fd, unix.SOL_LOCAL, unix.LOCAL_PEERCRED)
	if err != nil {
		return Credentials{}, err
	}
	pid, err := unix.GetsockoptInt(fd, unix.SOL_LOCAL, unix.LOCAL_PEERPID)
	if err != nil {
		return Credentials{}, err
	}
	c := Credentials{PID: pid, UID: u.Uid}
	if u.Ngroups > 0 {
		c.GID = u.Groups[0]
	}
	return c, nil
}

// receiveRights is one recvmsg that does not block. There is no
// MSG_CMSG_CLOEXEC here, so no child may be forked until the flag is set.
// fds is to be closed by the caller even when err is set.
func receiveRights(fd int, p, oob []byte) (n, oobn, flags int, fds []int, err error) {
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	for {
		n, oobn, flags, _, err = unix.Recvmsg(fd, p, oob, unix.MSG_DONTWAIT)
		if err != unix.EINTR {
			break
		}
	}
	if err != nil {
		return 0, 0, 0, nil, err
	}
	fds, err = rightsIn(oob[:oobn])
	for _, fd := range fds {
		unix.CloseOnExec(fd)
	}
	return n, oobn, flags, fds, err
}
