package main

import (
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// fromEnvironment gives each flag that was not typed the value that
// GAPLESS_ and its name hold. For a flag that may be repeated the values stand with
// spaces between them.
func fromEnvironment(c *cobra.Command) error {
	var failed error
	c.Flags().VisitAll(func(f *pflag.Flag) {
		name := envName(f.Name)
		value, set := os.LookupEnv(name)
		if !set || f.Changed || f.Name == "help" || failed != nil {
			return
		}
		values := []string{value}
		if _, many := f.Value.(pflag.SliceValue); many {
			values = strings.Fields(value)
		}
		for _, v := range values {
			if err := f.Value.Set(v); err != nil {
				failed = wrongUsage(c.CommandPath(), "bad %s=%q in the environment: %s", name, value, err)
				return
			}
		}
		f.Changed = true
	})
	return failed
}

func envName(flag string) string {
	return "GAPLESS_" + strings.ToUpper(strings.ReplaceAll(flag, "-", "_"))
}

// duration is a flag's value that always carries a unit.
type duration time.Duration

func (d *duration) String() string { return plainDuration(time.Duration(*d)) }
func (d *duration) Type() string   { return "DURATION" }

func (d *duration) Set(text string) error {
	v, err := time.ParseDuration(text)
	if err != nil {
		if isNumber(text) {
			return fmt.Errorf("%s of what? say %ss, %sms or %sm", text, text, text, text)
		}
		return fmt.Errorf("want a duration with a unit, as 500ms, 30s or 2m")
	}
	if v < 0 {
		return fmt.Errorf("it can't be negative")
	}
	*d = duration(v)
	return nil
}

func isNumber(text string) bool {
	return text != "" && strings.Trim(text, "0123456789.") == ""
}

// plainDuration is "1m" where Go says "1m0s".
func plainDuration(d time.Duration) string {
	text := d.String()
	if strings.HasSuffix(text, "m0s") {
		text = strings.TrimSuffix(text, "0s")
	}
	if strings.HasSuffix(text, "h0m") {
		text = strings.TrimSuffix(text, "0m")
	}
	return text
}

func durationFlag(f *pflag.FlagSet, at *duration, name string, value time.Duration, usage string) {
	*at = duration(value)
	f.Var(at, name, usage)
}

// choice is a flag's value that is one of a few words.
type choice struct {
	value string
	words []string
}

func (c *choice) String() string { return c.value }
func (c *choice) Type() string   { return strings.Join(c.words, "|") }

func (c *choice) Set(text string) error {
	for _, w := range c.words {
		if text == w {
			c.value = text
			return nil
		}
	}
	return fmt.Errorf("want %s", strings.Join(c.words, " or "))
}

// choiceFlag's first word is the default.
func choiceFlag(f *pflag.FlagSet, at *choice, name, short, usage string, words ...string) {
	*at = choice{value: words[0], words: words}
	f.VarP(at, name, short, usage)
}
