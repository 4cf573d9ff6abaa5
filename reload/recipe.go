package reload

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/gapless-dev/gapless/reload/state"
)

func (c Config) recipe() state.Recipe {
	return state.Recipe{Command: slices.Clone(c.Command), Dir: c.Dir, EnvFile: c.EnvFile}
}

// recipe is old with what those who wait want to be different, in the order in which
// they asked.
func (r *rollout) recipe(old state.Recipe) state.Recipe {
	recipe := old.Clone()
	if r.back != nil {
		recipe = r.back.Recipe.Clone()
	}
	for _, w := range r.waiters {
		w.change.apply(&recipe)
	}
	return recipe
}

func (r *rollout) of() int {
	if r.back == nil {
		return 0
	}
	return r.back.Generation
}

func (c Change) apply(to *state.Recipe) {
	if len(c.Command) > 0 {
		to.Command = slices.Clone(c.Command)
	}
	if c.EnvFile != "" {
		to.EnvFile = c.EnvFile
	}
	for _, kv := range c.Set {
		name, _, _ := strings.Cut(kv, "=")
		to.Set = slices.DeleteFunc(to.Set, func(old string) bool { return strings.HasPrefix(old, name+"=") })
		to.Set = append(to.Set, kv)
	}
}

func (c Change) check() error {
	for _, kv := range c.Set {
		if name, _, found := strings.Cut(kv, "="); !found || name == "" || strings.ContainsRune(kv, 0) {
			return fmt.Errorf("can't set %q: want NAME=VALUE", kv)
		}
	}
	if len(c.Command) > 0 && c.Command[0] == "" {
		return fmt.Errorf("can't run a command without a name")
	}
	if c.EnvFile != "" && !filepath.IsAbs(c.EnvFile) {
		return fmt.Errorf("can't read the environment file %s: its path must be absolute", c.EnvFile)
	}
	return nil
}

// Empty tells whether it changes nothing.
func (c Change) Empty() bool { return len(c.Command) == 0 && len(c.Set) == 0 && c.EnvFile == "" }
