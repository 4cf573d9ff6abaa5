// Package bind lets a holder see each bind(2) and listen(2) of a daemon that knows
// nothing of it, static binaries too, and decide about it: let it go on, answer it,
// bind a duplicate of the daemon's socket in its stead, or put another socket in the
// place of the daemon's. It knows no policy: which endpoint a bind is for, and what
// becomes of it, is decided by package reload.
//
// # How
//
// A seccomp filter notifies of the two system calls (seccomp(2),
// SECCOMP_FILTER_FLAG_NEW_LISTENER; seccomp_unotify(2)). It is pure Go, and for the
// two architectures whose numbers it knows; calls by another one's numbers (i386, x32)
// pass untouched, and so does everything else.
//
//	holder                                   shim, then the daemon in its place
//	                                         [Install] on the thread that will execve
//	[NewWatch] takes it over  ◀── notify fd, SCM_RIGHTS
//	                                         execve; the filter stays, the fd does not
//	[Watch.Next]              ◀── bind(3, …) and the thread waits
//	[Call.Socket] [Socket.Bind] [Call.Replace]
//	[Call.Continue], [Call.Answer]  ──▶      it returns
//	[io.EOF]                  ◀── the last process under the filter has ended
//
// The filter is inherited by whatever the daemon forks, and can't be taken off. It is
// the kernel's rule that there is one such filter in a chain (EBUSY).
//
// # Ownership
//
// The notify fd belongs to whoever called [Install] until it has been sent, and in the
// holder to the [Watch], which [Watch.Close] ends. A [Call] owns nothing, and must be
// answered once: its thread waits until then. A [Socket] owns a descriptor of this
// process for the daemon's socket; closing it does not close the daemon's, and the
// socket lives until both have. What [Call.Replace] puts into the daemon is a duplicate,
// and the holder's stays the holder's.
//
// # When one side dies
//
//   - The shim, before it has sent the notify fd: nobody else has it, and no daemon ran.
//   - The holder, or its Watch is closed: binds that wait and all that follow fail with
//     ENOSYS, unless somebody else has the notify fd too. That is why a shim that can't
//     send it must not run the daemon.
//   - The thread, before the call is answered: Next passes it over, later [ErrGone] says
//     so, and an answer is lost without an error. Duplicates are as valid as before.
//   - The daemon, all of it: io.EOF. Before Linux 6.11 that comes only when its parent
//     has waited for it too.
//
// # What can be trusted
//
// The thread's number may be another's as soon as it has died. So the notification is
// checked (SECCOMP_IOCTL_NOTIF_ID_VALID) after everything that was read by that number,
// and only then believed (seccomp_unotify(2)).
//
// The address is read once from the daemon's memory and this copy is used, since other
// threads may write there; so after [Call.Continue] the kernel may read another one.
// Other threads may also put another file at the descriptor's number. What is known
// of a socket is what its duplicate says, and two are the same if their inodes are.
//
// A thread that waits is woken by signals, and Go sends many (SIGURG, preemption).
// Since Linux 5.19 a call that has been received waits on
// (SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV). On older kernels it is restarted, and then
// notified once more; so the same bind may come twice, and its answer must be known by
// the socket's inode.
//
// io_uring's bind and listen (Linux 6.11) are not seen by seccomp.
package bind
