package conns

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

const procDir = "/proc"

// Sockets returns the inodes of the sockets that process pid has open. Those of another user's process can't be read without
// privilege ([fs.ErrPermission]); a process that is gone is [fs.ErrNotExist] or unix.ESRCH.
func Sockets(pid int) (map[uint64]bool, error) {
	inodes := map[uint64]bool{}
	if err := addSockets(inodes, pid); err != nil {
		return nil, err
	}
	return inodes, nil
}

// Descriptors returns how many of process pid's are the socket with that inode. Its errors are those of [Sockets].
func Descriptors(pid int, inode uint64) (n int, err error) {
	err = eachSocket(pid, func(other uint64) bool {
		if other == inode {
			n++
		}
		return true
	})
	if err != nil {
		return 0, socketsError(pid, err)
	}
	return n, nil
}

func addSockets(inodes map[uint64]bool, pid int) error {
	err := eachSocket(pid, func(inode uint64) bool { inodes[inode] = true; return true })
	if err != nil {
		return socketsError(pid, err)
	}
	return nil
}

func socketsError(pid int, err error) error {
	return fmt.Errorf("can't list sockets of process %d: %w", pid, err)
}

// direntRoom is for the names of some 1,300 descriptors.
const direntRoom = 32 << 10

// eachSocket calls more for each descriptor of pid that is a socket, until it returns false.
func eachSocket(pid int, more func(inode uint64) bool) error {
	at, err := unix.Open(filepath.Join(procDir, strconv.Itoa(pid), "fd"), unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(at)
	var link [64]byte // a longer link is no socket
	entries := make([]byte, direntRoom)
	for {
		n, err := unix.Getdents(at, entries)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil || n <= 0 {
			return err
		}
		for rest := entries[:n]; len(rest) > 0; {
			var name []byte
			if name, rest = nextEntry(rest); name[0] == '.' {
				continue
			}
			// A descriptor that was closed meanwhile is none.
			if inode, ok := socketInode(link[:readLink(at, name, link[:])]); ok && !more(inode) {
				return nil
			}
		}
	}
}

// nextEntry takes a struct linux_dirent64 off b: inode, offset, its length at 16, type, and at 19 the name, which ends with a 0
// that is part of what is returned.
func nextEntry(b []byte) (name, rest []byte) {
	size := native.Uint16(b[16:])
	return b[19:size], b[size:]
}

// readLink is readlinkat(2) without a copy of the name, of which there may be tens of thousands; 0 if it can't be read.
func readLink(at int, name, to []byte) int {
	n, _, errno := unix.Syscall6(unix.SYS_READLINKAT, uintptr(at), uintptr(unsafe.Pointer(&name[0])), uintptr(unsafe.Pointer(&to[0])), uintptr(len(to)), 0, 0)
	if errno != 0 {
		return 0
	}
	return int(n)
}

// socketInode reads a link of the form "socket:[4711]".
func socketInode(link []byte) (uint64, bool) {
	number, ok := bytes.CutPrefix(link, []byte("socket:["))
	if !ok {
		return 0, false
	}
	number, ok = bytes.CutSuffix(number, []byte("]"))
	if !ok {
		return 0, false
	}
	inode, err := strconv.ParseUint(string(number), 10, 64)
	return inode, err == nil
}

// processes returns the ids of all processes, ascending.
func processes() ([]int, error) {
	dir, err := os.Open(procDir)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	return processesIn(dir)
}

func processesIn(dir *os.File) ([]int, error) {
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return nil, err
	}
	var pids []int
	for _, name := range names {
		if pid, err := strconv.Atoi(name); err == nil {
			pids = append(pids, pid)
		}
	}
	slices.Sort(pids)
	return pids, nil
}

// Group returns the processes of process group pgid, ascending, without those that have ended and are not reaped. Its cost
// grows with the number of processes on the machine. A group without processes is no error.
func Group(pgid int) ([]int, error) {
	l, err := OpenLister()
	if err != nil {
		return nil, fmt.Errorf("can't list process group %d: %w", pgid, err)
	}
	defer l.Close()
	return l.Group(pgid)
}

// Lister lists processes also while this process can't open another file. It owns one descriptor, and is not for concurrent
// use.
type Lister struct{ dir *os.File }

// OpenLister makes a Lister; Close ends it.
func OpenLister() (*Lister, error) {
	dir, err := os.Open(procDir)
	if err != nil {
		return nil, fmt.Errorf("can't list processes: %w", err)
	}
	return &Lister{dir}, nil
}

// Close gives the descriptor back.
func (l *Lister) Close() error { return l.dir.Close() }

// Group is [Group].
func (l *Lister) Group(pgid int) ([]int, error) {
	if _, err := l.dir.Seek(0, io.SeekStart); err != nil {
		return nil, fmt.Errorf("can't list process group %d: %w", pgid, err)
	}
	pids, err := processesIn(l.dir)
	if err != nil {
		return nil, fmt.Errorf("can't list process group %d: %w", pgid, err)
	}
	var members []int
	for _, pid := range pids {
		// Nearly all are of another group: one system call each, not three.
		if group, err := unix.Getpgid(pid); err == nil && group == pgid && runs(pid, pgid) {
			members = append(members, pid)
		}
	}
	return members, nil
}

// runs tells whether pid, of group pgid, is there and has not ended.
func runs(pid, pgid int) bool {
	stat, err := os.ReadFile(filepath.Join(procDir, strconv.Itoa(pid), "stat"))
	if errors.Is(err, unix.EMFILE) || errors.Is(err, unix.ENFILE) {
		return hasProgram(pid)
	}
	if err != nil {
		return false // it ended since the listing
	}
	state, group, ok := parseStat(stat)
	return ok && group == pgid && state != 'Z' && state != 'X'
}

// hasProgram needs no descriptor. A process that has ended has no program any more (proc_exe_link in fs/proc/base.c); of one
// whose link may not be read it can't be told.
func hasProgram(pid int) bool {
	_, err := os.Readlink(filepath.Join(procDir, strconv.Itoa(pid), "exe"))
	return err == nil || errors.Is(err, os.ErrPermission)
}

// parseStat reads state and process group from /proc/PID/stat: "pid (name) state ppid pgrp …". The name may hold anything,
// ')' and spaces too, so the fields are counted from the last ')'.
func parseStat(b []byte) (state byte, pgrp int, ok bool) {
	i := bytes.LastIndexByte(b, ')')
	if i < 0 {
		return 0, 0, false
	}
	fields := strings.Fields(string(b[i+1:]))
	if len(fields) < 3 {
		return 0, 0, false
	}
	pgrp, err := strconv.Atoi(fields[2])
	return fields[0][0], pgrp, err == nil
}

// Owners returns for each of the socket inodes a process that has it open, the one with the lowest id; an inode of which none
// is found is missing. It reads the descriptors of every process until it has them all, so it is for error messages, not for
// loops. Processes that may not be read are passed over.
func Owners(ctx context.Context, inodes ...uint64) (map[uint64]Owner, error) {
	pids, err := processes()
	if err != nil {
		return nil, fmt.Errorf("can't list processes: %w", err)
	}
	missing := make(map[uint64]bool, len(inodes))
	for _, inode := range inodes {
		missing[inode] = inode != 0
	}
	delete(missing, 0)
	owners := map[uint64]Owner{}
	for _, pid := range pids {
		if len(missing) == 0 {
			break
		}
		if err := ctx.Err(); err != nil {
			return owners, err
		}
		own(owners, missing, pid)
	}
	return owners, nil
}

// own moves the inodes that process pid has open from missing to owners.
func own(owners map[uint64]Owner, missing map[uint64]bool, pid int) {
	var found []uint64
	err := eachSocket(pid, func(inode uint64) bool {
		if missing[inode] {
			found = append(found, inode)
			delete(missing, inode)
		}
		return len(missing) > 0
	})
	if err != nil || len(found) == 0 {
		return // not ours to read, or gone: best effort
	}
	owner := readOwner(pid)
	for _, inode := range found {
		owners[inode] = owner
	}
}

// readOwner says who pid is, as far as that can still be read.
func readOwner(pid int) Owner {
	dir := filepath.Join(procDir, strconv.Itoa(pid))
	owner := Owner{PID: pid}
	if comm, err := os.ReadFile(filepath.Join(dir, "comm")); err == nil {
		owner.Name = strings.TrimSuffix(string(comm), "\n")
	}
	if status, err := os.ReadFile(filepath.Join(dir, "status")); err == nil {
		owner.UID = effectiveUID(status)
	}
	return owner
}

// effectiveUID is the second number after "Uid:" in /proc/PID/status.
func effectiveUID(status []byte) uint32 {
	for line := range strings.Lines(string(status)) {
		rest, ok := strings.CutPrefix(line, "Uid:")
		if !ok {
			continue
		}
		if fields := strings.Fields(rest); len(fields) > 1 {
			uid, _ := strconv.ParseUint(fields[1], 10, 32)
			return uint32(uid)
		}
	}
	return 0
}
