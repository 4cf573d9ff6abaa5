// Package control lets people and tools talk to the holder of a service: HTTP with
// JSON over a unix socket, so that curl --unix-socket does too.
//
// # Protocol
//
// The version is in the path. Answers are JSON, errors are {"failure": {…}} with
// the fields of [reload.Failure].
//
//	GET  /v1/service    who holds it, and how long its operations may take
//	GET  /v1/status     reload.Status
//	POST /v1/reload     {"if_generation", "no_wait", "reason", "timeout_ns"} → reload.Result
//	POST /v1/start      {"timeout_ns"} → reload.Result
//	POST /v1/stop       {"timeout_ns"}
//	POST /v1/shutdown   {"timeout_ns"}
//	POST /v1/kill       {"signal": 1} → {"generation"}
//	GET  /v1/events     one event a line; ?follow=1 goes on until the service ends
//
// Every operation has a deadline and a final answer. One whose caller has gone, or
// whose deadline has passed, goes on in the holder.
//
// # Who may ask
//
// The socket has mode 0600, and the kernel says who is at the other end
// (SO_PEERCRED, unix(7)): root and the holder's own user are answered, everybody
// else is refused.
//
// At most 128 connect at once, or an eighth of RLIMIT_NOFILE if that is less, so that a
// reload has the descriptors that it needs. When one more comes, the oldest goes that has
// asked for nothing in a quarter of a second. Half may follow the events and a quarter
// wait for the daemon; one more is refused, with code 75. Each has 5 s for its header, 5 s
// for its body and 10 s for each piece of an answer. A descriptor is kept in reserve, so
// that a holder without any other can still say so.
//
// # Ownership
//
// A [Socket] owns its file: it replaces one at which nobody answers, under a lock
// file beside it, and removes it at the end only if it is still its own. A [Server]
// owns the Socket and its goroutines until [Server.Close]. If the holder dies the
// file stays, and the next holder of that name replaces it; a [Client] that waits
// then gets an error that says so. If a client dies, what it asked for goes on.
package control
