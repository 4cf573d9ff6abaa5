package main

import (
	"errors"
	"strings"

	"github.com/spf13/cobra"
)

const rootExample = `  gapless run -l 8080 -- ./server         hold port 8080, run ./server, restart it if it crashes
  gapless reload                          replace it by a new generation; clients notice nothing
  gapless status                          a row a generation
  gapless shutdown                        drain it and end`

// execute is the whole command, but for the hidden sub-commands.
func execute(args []string, t terminal) int {
	root := newRoot(t)
	if err := checkVerb(root, args); err != nil {
		return t.report(err)
	}
	root.SetArgs(args)
	return t.report(root.Execute())
}

func newRoot(t terminal) *cobra.Command {
	var showVersion bool
	root := &cobra.Command{
		Use:                   "gapless",
		DisableFlagsInUseLine: true,
		Short:                 "Keep a daemon's sockets alive while the daemon itself is replaced",
		Example:               rootExample,
		SilenceErrors:         true,
		SilenceUsage:          true,
		CompletionOptions:     cobra.CompletionOptions{DisableDefaultCmd: true},
		RunE: func(*cobra.Command, []string) error {
			if showVersion {
				return t.printVersion()
			}
			return wrongUsage("gapless", "say what to do: run, reload, status …")
		},
	}
	root.Flags().BoolVar(&showVersion, "version", false, "print the version")
	root.SetIn(t.in)
	root.SetOut(t.out)
	root.SetErr(t.err)
	root.SetFlagErrorFunc(func(c *cobra.Command, err error) error { return wrongUsage(c.CommandPath(), "%s", err) })
	root.SetHelpTemplate(helpTemplate)
	root.SetHelpCommand(newHelp(root))
	root.AddCommand(newRun(t), newReload(t), newRollback(t), newCanary(t), newPromote(t), newPause(t), newResume(t), newStatus(t), newEvents(t), newStop(t), newStart(t), newShutdown(t), newKill(t),
		newDoctor(t), newListenPID(t), newVersion(t), newCompletion(t), newMan(t))
	for _, c := range root.Commands() {
		finish(c)
	}
	root.InitDefaultHelpCmd() // only now, since it does nothing without other commands
	return root
}

// finish gives every verb what all have: flags from the environment, and errors in
// its arguments that are errors of usage.
func finish(c *cobra.Command) {
	c.DisableFlagsInUseLine = true
	c.Flags().SortFlags = false
	c.InitDefaultHelpFlag()
	c.Flags().Lookup("help").Usage = "this text"
	if check := c.Args; check != nil {
		c.Args = func(c *cobra.Command, args []string) error {
			if err := check(c, args); err != nil {
				return wrongUsage(c.CommandPath(), "%s", err)
			}
			return nil
		}
	}
	c.PreRunE = func(c *cobra.Command, _ []string) error { return fromEnvironment(c) }
}

// checkVerb comes before cobra, which takes a verb that is none for an argument,
// and prints the root's help for it.
func checkVerb(root *cobra.Command, args []string) error {
	if len(args) == 0 || strings.HasPrefix(args[0], "-") || strings.HasPrefix(args[0], "__complete") {
		return nil
	}
	if c, _, err := root.Find(args[:1]); err == nil && c != root {
		return nil
	}
	if near := root.SuggestionsFor(args[0]); len(near) > 0 && len(args[0]) > 3 { // of a shorter one too little is left
		return wrongUsage("gapless", "unknown verb %q; did you mean %s?", args[0], strings.Join(near, " or "))
	}
	return wrongUsage("gapless", "unknown verb %q", args[0])
}

func newHelp(root *cobra.Command) *cobra.Command {
	return &cobra.Command{
		Use:   "help [VERB]",
		Short: "What a verb does",
		RunE: func(_ *cobra.Command, args []string) error {
			if err := checkVerb(root, args); err != nil {
				return err
			}
			c, _, err := root.Find(args)
			if err != nil {
				return errors.Join(wrongUsage("gapless", "unknown verb"), err)
			}
			return c.Help()
		},
	}
}

// helpTemplate begins with examples and fits one screen.
const helpTemplate = `{{with .Example}}{{.}}

{{end}}{{with .Short}}{{.}}.

{{end}}Usage: {{.UseLine}}{{if .HasAvailableSubCommands}} VERB
{{range .Commands}}{{if .IsAvailableCommand}}
  {{rpad .Name .NamePadding}}  {{.Short}}{{end}}{{end}}

See gapless VERB --help.
{{else}}
{{with .LocalFlags.FlagUsages}}
{{.}}{{end}}{{with .Long}}
{{.}}
{{end}}{{end}}`
