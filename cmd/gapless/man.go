package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

func newMan(t terminal) *cobra.Command {
	return &cobra.Command{
		Use: "man", Short: "Print the manual page", Example: "  gapless man > /usr/local/share/man/man1/gapless.1", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return t.print("%s", manual(c.Root()))
		},
	}
}

// page is a manual page in the man(7) macros.
type page struct{ strings.Builder }

func (p *page) line(format string, args ...any) { fmt.Fprintf(p, format+"\n", args...) }

// text keeps roff from reading what people read.
func (p *page) text(s string) {
	for line := range strings.Lines(s) {
		line = escape(strings.TrimSuffix(line, "\n"))
		if strings.HasPrefix(line, ".") || strings.HasPrefix(line, "'") {
			line = `\&` + line
		}
		p.line("%s", line)
	}
}

func escape(s string) string {
	return strings.NewReplacer(`\`, `\e`, "-", `\-`).Replace(s)
}

func (p *page) verbatim(s string) {
	p.line(".nf")
	p.text(s)
	p.line(".fi")
}

// manual has one page for all verbs, from the same words that --help prints.
func manual(root *cobra.Command) string {
	p := &page{}
	p.line(`.TH GAPLESS 1 "" "gapless %s" "User Commands"`, escape(version()))
	p.line(".SH NAME\n%s", escape("gapless - ")+escape(root.Short))
	p.line(".SH SYNOPSIS")
	for _, c := range root.Commands() {
		if c.IsAvailableCommand() {
			p.line(".B %s\n.br", escape(c.UseLine()))
		}
	}
	p.line(".SH EXAMPLES")
	p.verbatim(root.Example)
	p.line(".SH COMMANDS")
	for _, c := range root.Commands() {
		if c.IsAvailableCommand() {
			p.verb(c)
		}
	}
	p.line(".SH EXIT STATUS")
	p.verbatim(exitStatus)
	p.line(".SH ENVIRONMENT")
	p.text(environment)
	return p.String()
}

func (p *page) verb(c *cobra.Command) {
	p.line(".SS %s", escape(c.UseLine()))
	p.text(c.Short + ".")
	p.line(".PP")
	p.verbatim(c.Example)
	c.Flags().VisitAll(func(f *pflag.Flag) {
		if f.Name != "help" {
			p.flag(f)
		}
	})
	if c.Long != "" {
		p.line(".PP")
		p.text(c.Long)
	}
}

func (p *page) flag(f *pflag.Flag) {
	argument, usage := pflag.UnquoteUsage(f)
	name := "--" + f.Name
	if f.Shorthand != "" {
		name = "-" + f.Shorthand + ", " + name
	}
	p.line(".TP\n.B %s", escape(name+" "+argument))
	if f.DefValue != "" && f.DefValue != "false" && f.DefValue != "[]" && f.DefValue != "0s" {
		usage += " (" + f.DefValue + ")"
	}
	p.text(usage)
}

const exitStatus = `0    done
1    failed
2    wrong usage
3    not running, or no such service
4    not permitted
10   the candidate was refused before it ran, or failed its probe
11   it did not become ready (ended, or too late); the old one serves on
run ends with the daemon's own code when it ends for good; 126, 127 when it can't be run; 128+n by signal.`

const environment = `Each flag can stand in the environment as GAPLESS_ and its name: GAPLESS_READY_TIMEOUT=1m. A flag that is typed counts more.
GAPLESS_RUNTIME_DIR is where control sockets are; else /run/gapless for root, else $XDG_RUNTIME_DIR/gapless, else /tmp/gapless-UID. NO_COLOR is honoured.`
