package handoff

import "golang.org/x/sys/unix"

func streamPair() ([2]int, error) {
	return unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
}

func peerCredentials(fd int) (Credentials, error) {
	u, err := unix.GetsockoptUcred(fd, unix.SOL_SOCKET, unix.SO_PEERCRED)
	if err != nil {
		return Credentials{}, err
	}
	return Credentials{PID: int(u.Pid), UID: u.Uid, GID: u.Gid}, nil
}

// receiveRights is one recvmsg that does not block. The files are CLOEXEC from
// the start; fds is to be closed by the caller even when err is set.
func receiveRights(fd int, p, oob []byte) (n, oobn, flags int, fds []int, err error) {
	for {
		n, oobn, flags, _, err = unix.Recvmsg(fd, p, oob, unix.MSG_CMSG_CLOEXEC|unix.MSG_DONTWAIT)
		if err != unix.EINTR {
			break
		}
	}
	if err != nil {
		return 0, 0, 0, nil, err
	}
	fds, err = rightsIn(oob[:oobn])
	return n, oobn, flags, fds, err
}
