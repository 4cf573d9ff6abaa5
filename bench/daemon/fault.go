package main

import (
	"fmt"
	"net"
	"net/http"
	"os"
	"strings"
	"sync/atomic"
	"time"
)

// fault is what is wrong with a version that should not have been deployed:
//
//	exit       it ends with 1 before it serves
//	hang       it never serves
//	sick       it answers 503
//	die:1s     it serves, and ends with 3 after so long
//
// Each says a last word, by which it is known whether that reaches who must read it.
type fault string

// beforeServing does not return if it never comes to that.
func (f fault) beforeServing() {
	switch f {
	case "exit":
		fmt.Fprintln(os.Stderr, "can't open the database: no such file")
		os.Exit(1)
	case "hang":
		fmt.Fprintln(os.Stderr, "waiting for the database")
		for {
			time.Sleep(time.Hour)
		}
	}
}

// spoil makes the server as bad as it is to be.
func (f fault) spoil(srv *http.Server) error {
	if f == "sick" {
		fmt.Fprintln(os.Stderr, "serving without the database")
		srv.Handler = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusServiceUnavailable) })
	}
	after, dies := strings.CutPrefix(string(f), "die:")
	if !dies {
		return nil
	}
	d, err := time.ParseDuration(after)
	if err != nil {
		return fmt.Errorf("bad -fault: %w", err)
	}
	var held atomic.Int64
	srv.ConnState = func(_ net.Conn, s http.ConnState) {
		switch s {
		case http.StateNew:
			held.Add(1)
		case http.StateClosed:
			held.Add(-1)
		}
	}
	time.AfterFunc(d, func() {
		fmt.Fprintf(os.Stderr, "dies with %d connections at %d\n", held.Load(), time.Now().UnixNano())
		os.Exit(3)
	})
	return nil
}
