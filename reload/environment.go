package reload

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/user"
	"slices"
	"strconv"
	"strings"

	"github.com/gapless-dev/gapless/reload/spawn"
)

// environment of a generation: the configured one, the file's, what reloads added,
// then what gapless says. The shim adds LISTEN_*.
func (s *Service) environment(g *generation, own []string) ([]string, error) {
	recipe := s.record(g).Recipe
	env := slices.Concat(s.cfg.Env, own)
	if recipe.EnvFile != "" {
		more, err := readEnvFile(recipe.EnvFile)
		if err != nil {
			return nil, err
		}
		env = append(env, more...)
	}
	return append(slices.Concat(env, recipe.Set),
		"NOTIFY_SOCKET="+g.notify.Address(),
		"GAPLESS_SERVICE="+s.cfg.Name,
		"GAPLESS_GENERATION="+strconv.Itoa(g.number),
	), nil
}

func readEnvFile(path string) ([]string, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("can't read the environment file: %w", err)
	}
	defer f.Close()
	env, err := ParseEnv(f)
	if err != nil {
		return nil, fmt.Errorf("can't read the environment file %s: %w", path, err)
	}
	return env, nil
}

// ParseEnv reads KEY=VALUE lines: blank lines and those that begin with # or ; are
// left out, and a value may stand in quotes (EnvironmentFile= of systemd.exec(5),
// less its escapes and continuation lines).
func ParseEnv(r io.Reader) ([]string, error) {
	var env []string
	lines := bufio.NewScanner(r)
	for n := 1; lines.Scan(); n++ {
		line := strings.TrimSpace(lines.Text())
		if line == "" || line[0] == '#' || line[0] == ';' {
			continue
		}
		key, value, found := strings.Cut(strings.TrimPrefix(line, "export "), "=")
		if !found || !isName(key) {
			return nil, fmt.Errorf("line %d: want NAME=VALUE, have %q", n, line)
		}
		env = append(env, key+"="+unquote(value))
	}
	return env, lines.Err()
}

func isName(key string) bool {
	for i, c := range key {
		letter := c == '_' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
		if !letter && (i == 0 || c < '0' || c > '9') {
			return false
		}
	}
	return key != ""
}

func unquote(value string) string {
	value = strings.TrimSpace(value)
	if n := len(value); n >= 2 && value[0] == value[n-1] && (value[0] == '"' || value[0] == '\'') {
		return value[1 : n-1]
	}
	return value
}

// credential looks a user up anew for each start. The variables are those that
// systemd sets with User=.
func credential(name, group string) (*spawn.Credential, []string, error) {
	if name == "" && group == "" {
		return nil, nil, nil
	}
	c := &spawn.Credential{UID: os.Getuid(), GID: os.Getgid()}
	var own []string
	if name != "" {
		u, err := lookupUser(name)
		if err != nil {
			return nil, nil, err
		}
		if err := become(c, u); err != nil {
			return nil, nil, err
		}
		own = []string{"HOME=" + u.HomeDir, "USER=" + u.Username, "LOGNAME=" + u.Username}
	}
	if group != "" {
		gid, err := lookupGroup(group)
		if err != nil {
			return nil, nil, err
		}
		c.GID = gid
	}
	return c, own, nil
}

func become(c *spawn.Credential, u *user.User) error {
	uid, errUID := strconv.Atoi(u.Uid)
	gid, errGID := strconv.Atoi(u.Gid)
	if errUID != nil || errGID != nil {
		return fmt.Errorf("can't run as %s: its ids are %q and %q", u.Username, u.Uid, u.Gid)
	}
	c.UID, c.GID = uid, gid
	ids, err := u.GroupIds()
	if err != nil {
		return fmt.Errorf("can't find the groups of %s: %w", u.Username, err)
	}
	for _, id := range ids {
		if n, err := strconv.Atoi(id); err == nil {
			c.Groups = append(c.Groups, n)
		}
	}
	return nil
}

func lookupUser(name string) (*user.User, error) {
	u, err := user.Lookup(name)
	if err != nil {
		u, err = user.LookupId(name)
	}
	if err != nil {
		return nil, fmt.Errorf("can't run as %s: %w", name, err)
	}
	return u, nil
}

func lookupGroup(name string) (int, error) {
	g, err := user.LookupGroup(name)
	if err != nil {
		g, err = user.LookupGroupId(name)
	}
	if err != nil {
		return 0, fmt.Errorf("can't run as group %s: %w", name, err)
	}
	return strconv.Atoi(g.Gid)
}
