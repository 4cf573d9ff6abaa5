package headline

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// PostgreSQL as initdb leaves it. Its fast shutdown is by SIGINT: by SIGTERM it would
// wait for each client that keeps its connection. It listens before it has read its
// log, and has only a message for who comes then; READY=1 says that this is over (Debian
// builds it --with-systemd).
func TestPostgreSQLLosesNothing(t *testing.T) {
	t.Parallel()
	postgresOf(t).losesNothing(t)
}

// postgresOf a new cluster.
func postgresOf(t *testing.T) database {
	t.Helper()
	programs, port := needPostgreSQL(t), freePort(t)
	dir, user := postgresDir(t)
	c := cluster{bin: programs, dir: dir, port: port, user: user}
	c.init(t)
	d := database{write: postgresWrite, read: postgresRead}
	d.subject = subject{name: "postgres", address: fmt.Sprintf("127.0.0.1:%d", port)}.with(c.flags()...)
	return d
}

// needPostgreSQL is the directory of its programs, which Debian has outside of PATH, one
// for each version.
func needPostgreSQL(t *testing.T) string {
	t.Helper()
	all, _ := filepath.Glob("/usr/lib/postgresql/*/bin/postgres")
	if len(all) == 0 {
		return filepath.Dir(need(t, "postgres"))
	}
	return filepath.Dir(slices.Max(all))
}

// cluster is a directory of data with the server for it.
type cluster struct {
	bin, dir string
	port     int
	user     *syscall.Credential // nil for ours
}

// postgresDir is a directory of the user who is to run it: never root, it refuses that.
func postgresDir(t *testing.T) (string, *syscall.Credential) {
	t.Helper()
	dir, err := os.MkdirTemp(binaries(t).Dir, "pg-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if os.Geteuid() != 0 {
		return dir, nil
	}
	nobody := &syscall.Credential{Uid: 65534, Gid: 65534}
	if err := os.Chown(dir, int(nobody.Uid), int(nobody.Gid)); err != nil {
		t.Fatal(err)
	}
	return dir, nobody
}

// init makes the cluster, with the table.
func (c cluster) init(t *testing.T) {
	t.Helper()
	c.run(t, "", "initdb", "--auth=trust", "--username=postgres", "--no-sync", "--pgdata="+c.dir+"/data")
	conf, err := os.OpenFile(c.dir+"/data/postgresql.conf", os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer conf.Close()
	fmt.Fprintf(conf, "port = %d\nunix_socket_directories = '%s'\n", c.port, c.dir)
	c.run(t, "create table written (n int);\n", "postgres", "--single", "-D", c.dir+"/data", "postgres")
}

func (c cluster) run(t *testing.T, input, program string, args ...string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), filepath.Join(c.bin, program), args...)
	cmd.Dir, cmd.Stdin = c.dir, strings.NewReader(input)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: c.user}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", program, err, out)
	}
}

// flags of `gapless run`, with the command.
func (c cluster) flags() []string {
	flags := []string{"--strategy", "replace", "--stop-signal", "INT"}
	if c.user != nil {
		flags = append(flags, "--user", "nobody")
	}
	return append(flags, "--", filepath.Join(c.bin, "postgres"), "-D", c.dir+"/data")
}

// postgresWrite inserts a row; the generation's word is when its postmaster started.
func postgresWrite(conn net.Conn, n int) (string, error) {
	p, err := postgresHello(conn)
	if err != nil {
		return "", err
	}
	who, err := p.query(fmt.Sprintf("insert into written values (%d) returning pg_postmaster_start_time()", n))
	if err != nil || len(who) != 1 {
		return "", fmt.Errorf("insert returned %q: %w", who, err)
	}
	return who[0], p.bye()
}

func postgresRead(conn net.Conn) (all []int, err error) {
	p, err := postgresHello(conn)
	if err != nil {
		return nil, err
	}
	rows, err := p.query("select n from written")
	for _, row := range rows {
		n, _ := strconv.Atoi(row) // what is no number is missed
		all = append(all, n)
	}
	return all, err
}

// postgres speaks the frontend protocol 3.0 (PostgreSQL's documentation, chapter 55
// "Frontend/Backend Protocol"), as far as a server without passwords needs it.
type postgres struct {
	conn net.Conn
	in   *bufio.Reader
}

func postgresHello(conn net.Conn) (*postgres, error) {
	p := &postgres{conn: conn, in: bufio.NewReader(conn)}
	const version = "\x00\x03\x00\x00"
	text := version + "user\x00postgres\x00database\x00postgres\x00\x00"
	if _, err := conn.Write(append(binary.BigEndian.AppendUint32(nil, uint32(4+len(text))), text...)); err != nil {
		return nil, err
	}
	_, err := p.untilReady()
	return p, err
}

// query returns the first column of each row.
func (p *postgres) query(text string) ([]string, error) {
	if err := p.say('Q', text+"\x00"); err != nil {
		return nil, err
	}
	return p.untilReady()
}

func (p *postgres) bye() error { return p.say('X', "") }

func (p *postgres) say(kind byte, text string) error {
	_, err := p.conn.Write(append(binary.BigEndian.AppendUint32([]byte{kind}, uint32(4+len(text))), text...))
	return err
}

// untilReady reads the answers up to ReadyForQuery.
func (p *postgres) untilReady() (rows []string, err error) {
	for {
		var head [5]byte
		if _, err := io.ReadFull(p.in, head[:]); err != nil {
			return nil, err
		}
		body := make([]byte, binary.BigEndian.Uint32(head[1:])-4)
		if _, err := io.ReadFull(p.in, body); err != nil {
			return nil, err
		}
		switch head[0] {
		case 'Z':
			return rows, nil
		case 'E': // fields, each with its letter
			return nil, fmt.Errorf("PostgreSQL says %q", strings.Split(string(body), "\x00"))
		case 'D': // the number of columns, then of each its length and value
			size := binary.BigEndian.Uint32(body[2:])
			rows = append(rows, string(body[6:6+size]))
		}
	}
}
