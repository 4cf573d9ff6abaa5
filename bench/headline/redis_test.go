package headline

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"testing"
)

// Redis as Debian's unit runs it, with its append-only file, which a stop by SIGTERM
// completes. It listens before it has read that, and says LOADING to who comes then;
// READY=1 says that this is over: gapless waits for it from the second generation on, as the
// first has said it.
func TestRedisLosesNothing(t *testing.T) {
	t.Parallel()
	program, dir, port := need(t, "redis-server"), t.TempDir(), freePort(t)
	conf := write(t, dir, "redis.conf", fmt.Sprintf("bind 127.0.0.1\nport %d\ndir %s\nappendonly yes\n", port, dir))
	d := database{write: redisWrite, read: redisRead}
	d.subject = subject{name: "redis", address: fmt.Sprintf("127.0.0.1:%d", port)}.with("--strategy", "replace", "--", program, conf, "--supervised", "systemd", "--daemonize", "no")
	d.losesNothing(t)
}

// redisWrite appends to a list; the generation's word is its run_id.
func redisWrite(conn net.Conn, n int) (string, error) {
	r := bufio.NewReader(conn)
	if _, err := redisSay(conn, r, fmt.Sprintf("RPUSH written %d", n)); err != nil {
		return "", err
	}
	info, err := redisSay(conn, r, "INFO server")
	if err != nil {
		return "", err
	}
	_, id, found := strings.Cut(info, "run_id:")
	if !found {
		return "", fmt.Errorf("no run_id in %q", info)
	}
	if _, err := redisSay(conn, r, "QUIT"); err != nil {
		return "", err
	}
	return strings.Fields(id)[0], nil
}

func redisRead(conn net.Conn) (all []int, err error) {
	r := bufio.NewReader(conn)
	count, err := redisSay(conn, r, "LRANGE written 0 -1")
	if err != nil {
		return nil, err
	}
	n, err := strconv.Atoi(count)
	for ; n > 0 && err == nil; n-- {
		var text string
		if text, err = redisReply(r); err == nil {
			all = append(all, 0)
			all[len(all)-1], err = strconv.Atoi(text)
		}
	}
	return all, err
}

func redisSay(conn net.Conn, r *bufio.Reader, command string) (string, error) {
	if _, err := io.WriteString(conn, command+"\r\n"); err != nil {
		return "", err
	}
	return redisReply(r)
}

// redisReply is one of the protocol's second version (redis.io, "RESP protocol spec");
// of an array it is only the number of those that follow.
func redisReply(r *bufio.Reader) (string, error) {
	line, err := r.ReadString('\n')
	if err != nil {
		return "", err
	}
	kind, value := line[0], strings.TrimSpace(line[1:])
	switch kind {
	case '+', ':', '*':
		return value, nil
	case '$':
		size, err := strconv.Atoi(value)
		if err != nil {
			return "", err
		}
		text := make([]byte, size+len("\r\n"))
		_, err = io.ReadFull(r, text)
		return strings.TrimSpace(string(text)), err
	}
	return "", fmt.Errorf("Redis says %q", line)
}
