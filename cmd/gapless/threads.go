package main

import (
	"runtime"
	"sync"
)

// threadsAhead are more than the holder has been seen to need: with reloads, and 40
// clients at once that ask for its status, it has 15 in all. They cost 150 KiB.
const threadsAhead = 24

// haveThreads makes the runtime's threads ahead of their need; it keeps those that it
// does not use. A Go program that can't make a thread is ended by its runtime, and the
// daemons of a service may well use up the processes that their cgroup or user may have.
func haveThreads(n int) {
	var running sync.WaitGroup
	running.Add(n)
	release := make(chan struct{})
	for range n {
		go func() {
			runtime.LockOSThread() // each has one to itself until all run
			defer runtime.UnlockOSThread()
			running.Done()
			<-release
		}()
	}
	running.Wait()
	close(release)
}
