// Command gapless keeps a daemon's sockets alive while the daemon itself is
// replaced.
//
// It is flags, words for people and wiring; nothing is decided here. The process of
// `gapless run` is the holder: it owns the service, the control socket and the
// signals until the service has ended, and exits with its code. If it dies, the
// daemons serve on. The other verbs are clients of a holder's control socket; if
// one dies, what it asked for goes on.
//
// The names, defaults and exit codes are a contract with those who use it.
package main

import "os"

func main() {
	hidden(os.Args)
	os.Exit(execute(os.Args[1:], terminal{in: os.Stdin, out: os.Stdout, err: os.Stderr}))
}
