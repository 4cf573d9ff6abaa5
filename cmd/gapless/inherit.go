package main

import (
	"fmt"

	"github.com/gapless-dev/gapless/handoff"
	"github.com/gapless-dev/gapless/handoff/activation"
)

// inherit takes the sockets that a service manager has started us with (LISTEN_FDS,
// sd_listen_fds(3)). One that can't be held is an error: nobody would serve it.
func inherit() ([]*handoff.Inherited, error) {
	files, err := activation.Files()
	if err != nil {
		return nil, fmt.Errorf("can't take over the service manager's sockets: %w", err)
	}
	var all []*handoff.Inherited
	for _, f := range files {
		in, err := handoff.Inherit(f.Name, f.FD)
		if err != nil {
			return nil, err
		}
		all = append(all, in)
	}
	return all, nil
}
