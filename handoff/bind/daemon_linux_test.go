package bind

import (
	"bufio"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// obey is the daemon: a command a line, an answer a line.
func obey() int {
	in := bufio.NewScanner(os.Stdin)
	for in.Scan() {
		words := strings.Fields(in.Text())
		fd := 0
		if len(words) > 1 {
			fd, _ = strconv.Atoi(words[1])
		}
		fmt.Println(command(in, words, fd))
	}
	return 0
}

func command(in *bufio.Scanner, words []string, fd int) string {
	switch words[0] {
	case "socket":
		return socketCommand(words[1:])
	case "bind":
		return result(unix.Bind(fd, numeric(words[2])))
	case "raw": // bind with an address in hexadecimal and an x
		return rawBind(fd, words[2])
	case "fault":
		_, _, errno := unix.Syscall(unix.SYS_BIND, uintptr(fd), 1, unix.SizeofSockaddrInet4)
		return unix.ErrnoName(errno)
	case "listen":
		n, _ := strconv.Atoi(words[2])
		return result(unix.Listen(fd, n))
	case "name":
		a, err := (&Socket{FD: fd}).Addr()
		if err != nil {
			return err.Error()
		}
		return a.String()
	case "serve":
		return serve(fd)
	case "flags":
		return flagsOf(fd)
	case "inode":
		var st unix.Stat_t
		unix.Fstat(fd, &st)
		return strconv.FormatUint(st.Ino, 10)
	case "set":
		level, _ := strconv.Atoi(words[2])
		name, _ := strconv.Atoi(words[3])
		value, _ := strconv.Atoi(words[4])
		return result(unix.SetsockoptInt(fd, level, name, value))
	case "epoll":
		set, err := unix.EpollCreate1(0)
		return result(errors.Join(err, unix.EpollCtl(set, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: unix.EPOLLIN})))
	case "dup2":
		to, _ := strconv.Atoi(words[2])
		return result(unix.Dup3(fd, to, 0))
	}
	return process(in, words, fd)
}

// numeric looks no interface up, which would be one more bind (netlink(7)).
func numeric(addr string) unix.Sockaddr {
	a := netip.MustParseAddrPort(addr)
	if a.Addr().Is4() {
		return &unix.SockaddrInet4{Port: int(a.Port()), Addr: a.Addr().As4()}
	}
	zone, _ := strconv.Atoi(a.Addr().Zone())
	return &unix.SockaddrInet6{Port: int(a.Port()), Addr: a.Addr().As16(), ZoneId: uint32(zone)}
}

// process are the commands that are about processes and threads.
func process(in *bufio.Scanner, words []string, fd int) string {
	switch words[0] {
	case "mutate":
		return mutate(in, fd, words[2], words[3])
	case "storm":
		return storm(fd, words[2])
	case "child":
		cmd := exec.Command("/proc/self/exe", "__listen")
		cmd.ExtraFiles = []*os.File{os.NewFile(uintptr(fd), "")}
		out, err := cmd.Output()
		return fmt.Sprint(cmd.Process.Pid, " ", strings.TrimSpace(string(out)), " ", err)
	case "leave":
		return result(exec.Command("/proc/self/exe", "__fork").Run())
	case "undumpable":
		return result(unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0))
	case "unshare":
		return result(unshareSocket(words[1]))
	case "bench":
		took, err := bindMany(fd)
		if err != nil {
			return err.Error()
		}
		return took.String()
	case "install":
		_, _, err := Install()
		var u *UnavailableError
		nnp, _ := unix.PrctlRetInt(unix.PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0)
		return fmt.Sprint(errors.As(err, &u) && errors.Is(err, unix.EBUSY), " ", nnp, " ", err)
	case "probe":
		return fmt.Sprint(Probe())
	}
	return "unknown"
}

func result(err error) string {
	var errno unix.Errno
	if errors.As(err, &errno) {
		return unix.ErrnoName(errno)
	}
	return fmt.Sprint(err)
}

// socketCommand: family and kind, then flags.
func socketCommand(words []string) string {
	family, kind, protocol := unix.AF_INET6, unix.SOCK_STREAM, unix.IPPROTO_TCP
	if strings.HasSuffix(words[0], "4") {
		family = unix.AF_INET
	}
	switch {
	case strings.HasPrefix(words[0], "mptcp"):
		protocol = unix.IPPROTO_MPTCP
	case strings.HasPrefix(words[0], "udp"):
		kind, protocol = unix.SOCK_DGRAM, 0
	case words[0] == "unix":
		family, protocol = unix.AF_UNIX, 0
	}
	for _, w := range words[1:] {
		kind |= map[string]int{"cloexec": unix.SOCK_CLOEXEC, "nonblock": unix.SOCK_NONBLOCK}[w]
	}
	fd, err := unix.Socket(family, kind, protocol)
	if err != nil {
		return result(err)
	}
	return strconv.Itoa(fd)
}

func rawBind(fd int, hex string) string {
	var b []byte
	fmt.Sscanf(strings.TrimSuffix(hex, "x"), "%x", &b)
	b = append(b, 0)
	_, _, errno := unix.Syscall(unix.SYS_BIND, uintptr(fd), uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)-1))
	if errno != 0 {
		return unix.ErrnoName(errno)
	}
	return "<nil>"
}

// serve answers one client with its own pid, non-blocking or not.
func serve(fd int) string {
	poll := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	for {
		if _, err := unix.Poll(poll, 20000); !errors.Is(err, unix.EINTR) {
			break
		}
	}
	c, _, err := unix.Accept4(fd, unix.SOCK_CLOEXEC)
	if err != nil {
		return result(err)
	}
	defer unix.Close(c)
	_, err = unix.Write(c, []byte(strconv.Itoa(os.Getpid())))
	return result(err)
}

func flagsOf(fd int) string {
	exec, err1 := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0)
	status, err2 := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
	if err := errors.Join(err1, err2); err != nil {
		return result(err)
	}
	return fmt.Sprint(exec&unix.FD_CLOEXEC != 0, " ", status&unix.O_NONBLOCK != 0)
}

// mutate binds to an address that another thread overwrites when the next line comes.
func mutate(in *bufio.Scanner, fd int, first, second string) string {
	before, after := rawInet4(first), rawInet4(second)
	done := make(chan string)
	go func() {
		_, _, errno := unix.Syscall(unix.SYS_BIND, uintptr(fd), uintptr(unsafe.Pointer(before)), unix.SizeofSockaddrInet4)
		done <- fmt.Sprint(errno == 0)
	}()
	in.Scan()
	for i := range *before {
		atomic.StoreUint32(&before[i], after[i])
	}
	fmt.Println("overwritten")
	return <-done
}

func rawInet4(s string) *[unix.SizeofSockaddrInet4 / 4]uint32 {
	a := netip.MustParseAddrPort(s)
	raw := new([unix.SizeofSockaddrInet4 / 4]uint32)
	sa := (*unix.RawSockaddrInet4)(unsafe.Pointer(raw))
	sa.Family, sa.Addr, sa.Port = unix.AF_INET, a.Addr().As4(), a.Port()<<8|a.Port()>>8
	return raw
}

// storm binds on a thread that gets signals all the time.
func storm(fd int, addr string) string {
	sa := numeric(addr)
	tid, done := make(chan int), make(chan error)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		tid <- unix.Gettid()
		done <- unix.Bind(fd, sa)
	}()
	to := <-tid
	for {
		select {
		case err := <-done:
			return result(err)
		default:
			unix.Tgkill(os.Getpid(), to, syscall.SIGURG)
			unix.Nanosleep(&unix.Timespec{Nsec: 20000}, nil)
		}
	}
}

// leaveGrandchild ends, and its child, in a session of its own, does not.
func leaveGrandchild() int {
	cmd := exec.Command("/proc/self/exe", "__grandchild")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return fail(err)
	}
	return 0
}

// unshareSocket binds one that is made in a network namespace of its own.
func unshareSocket(addr string) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // and ends with this goroutine
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			done <- err
			return
		}
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err == nil {
			sa := numeric(addr)
			err = unix.Bind(fd, sa)
			unix.Close(fd)
		}
		done <- err
	}()
	return <-done
}

// without runs this binary's tests with a capability less.
func without(args []string) int {
	runtime.LockOSThread()
	n, _ := strconv.Atoi(args[0])
	if err := unix.Prctl(unix.PR_CAPBSET_DROP, uintptr(n), 0, 0, 0); err != nil {
		return fail(err)
	}
	return fail(syscall.Exec("/proc/self/exe", append([]string{"bind.test"}, args[1:]...), os.Environ()))
}
