// Package activation is what a daemon imports to be replaced without losing a
// connection: it takes the listeners that a manager holds (gapless, systemd or
// anything else that speaks LISTEN_FDS), says when it can serve, and stops in a
// way that every client notices in time.
//
//	ln, err := activation.Listen("http", "tcp", ":8080")
//	if err != nil {
//		log.Fatal(err)
//	}
//	err = activation.Serve(ctx, &http.Server{Handler: h}, ln) // until SIGTERM
//
// Without a manager the same program listens by itself and is silent. A daemon
// with several listeners calls [Inherit] once and takes them by name.
//
// Who owns what: each listener is a duplicate of the manager's, so closing it
// here closes nothing for the manager, nor for an older or newer generation of
// the daemon; it must never be shut down with shutdown(2), which would. When
// the manager dies, listeners and connections live on. When the daemon dies,
// what waits in its queue is the manager's to hand on.
//
// The protocol is that of sd_listen_fds(3) and sd_notify(3).
package activation
