package activation_test

import (
	"context"
	"log"
	"net/http"
	"time"

	"github.com/gapless-dev/gapless/handoff/activation"
)

func Example() {
	ln, err := activation.Listen("http", "tcp", ":8080")
	if err != nil {
		log.Fatal(err)
	}
	if err := activation.Serve(context.Background(), &http.Server{}, ln); err != nil {
		log.Fatal(err)
	}
}

// Three listeners: two that serve the same, and one of its own.
func ExampleInherit() {
	in, err := activation.Inherit()
	if err != nil {
		log.Fatal(err)
	}
	web, err := in.Listen("http", "tcp", ":8080")
	if err != nil {
		log.Fatal(err)
	}
	local, err := in.Listen("local", "unix", "/run/app.sock")
	if err != nil {
		log.Fatal(err)
	}
	metrics, err := in.Listen("metrics", "tcp", "127.0.0.1:9090")
	if err != nil {
		log.Fatal(err)
	}
	if err := in.Close(); err != nil { // what the manager offers and we don't know
		log.Print(err)
	}
	go http.Serve(metrics, nil)
	srv := &activation.Server{HTTP: &http.Server{}, DrainTimeout: time.Minute}
	if err := srv.Serve(context.Background(), web, local); err != nil {
		log.Fatal(err)
	}
}
