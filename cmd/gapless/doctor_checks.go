package main

import (
	"context"
	"runtime"
	"sync"
	"time"

	"github.com/gapless-dev/gapless/reload/spawn"
)

// What is found out is the rooms' (Try…); here are the words for it, and what it costs.

// diagnose tries all. What waits for processes goes on beside what needs none.
func diagnose(ctx context.Context) diagnosis {
	began := time.Now()
	d := diagnosis{Version: version(), OS: runtime.GOOS, Arch: runtime.GOARCH, Place: spawn.FindPlace()}
	orphans, end := tryOrphans()
	defer end()
	var binds []check
	var wg sync.WaitGroup
	wg.Go(func() { binds = bindChecks(ctx) })
	sockets := socketChecks(ctx)
	wg.Wait()
	d.Checks = append(d.Checks, kernelCheck(d.Place.Kernel))
	d.Checks = append(d.Checks, sockets...)
	d.Checks = append(d.Checks, binds...)
	d.Checks = append(d.Checks, orphans)
	d.Checks = append(d.Checks, processChecks(ctx)...)
	for i := range d.Checks {
		if d.Checks[i].State == "" { // one that is not of this system
			d.Checks[i].State = stateOK
		}
	}
	d.judge()
	d.TookMS = time.Since(began).Milliseconds()
	return d
}

// of makes a check of what was tried and how that ended. found is what there is to say
// when all is well; else it is the error.
func of(name, tried, found string, err error, otherwise check) check {
	c := check{Name: name, State: stateOK, Tried: tried, Found: found}
	if err == nil {
		return c
	}
	otherwise.Name, otherwise.Tried, otherwise.Found = name, tried, err.Error()
	return otherwise
}

// within waits for what has no deadline of its own to give, and no longer than ctx.
func within(ctx context.Context, try func() error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	done := make(chan error, 1)
	go func() { done <- try() }()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
