package main

import (
	"github.com/spf13/cobra"
)

const runExample = `  gapless run -l 8080 -- ./server
  gapless run -n web -l http=:80 -l https=:443 --user www -- /srv/web/current/bin/web -v
  gapless run -l 127.0.0.1:8000 --probe http:/healthz -- gunicorn app:app`

const runLong = `Signals: HUP reload · TERM INT end now, twice: kill · QUIT drain and end · USR1 state to the log.
Each flag can stand in the environment: GAPLESS_READY_TIMEOUT=1m. Specs: 8080, 127.0.0.1:80, [::1]:80,
name=host:port, tcp4:… tcp6:…, and options: 8080,backlog=512,nodelay,keepalive,defer-accept=5s.`

func newRun(t terminal) *cobra.Command {
	var f runFlags
	c := &cobra.Command{
		Use:     "run [flags] -- COMMAND [ARG...]",
		Short:   "Hold the sockets, run the daemon, replace it on request",
		Example: runExample,
		Long:    runLong,
		RunE: func(c *cobra.Command, command []string) error {
			inherited, err := inherit()
			if err != nil {
				return err
			}
			cfg, err := f.config(command, len(inherited))
			if err != nil {
				return wrongUsage(c.CommandPath(), "%s", err)
			}
			cfg.Inherited = inherited
			h := holder{terminal: t, flags: &f, config: cfg}
			return h.run(c.Context())
		},
	}
	c.Flags().SetInterspersed(false) // the rest is the daemon's, with or without --
	f.define(c.Flags())
	return c
}
