package bench

import (
	"bufio"
	"errors"
	"net"
	"strings"
	"testing"
)

// shout is a protocol of one line each way.
func shout(conn net.Conn) (string, error) {
	if _, err := conn.Write([]byte("hello\n")); err != nil {
		return "", err
	}
	line, err := bufio.NewReader(conn).ReadString('\n')
	if err == nil && !strings.HasPrefix(line, "HELLO") {
		err = errors.New("not shouted")
	}
	return strings.TrimPrefix(strings.TrimSpace(line), "HELLO "), err
}

// What is said on each connection is judged by whether the connection or the answer is
// at fault, and by how far it had come.
func TestSpeak(t *testing.T) {
	for answer, want := range map[string]Class{
		"HELLO 3\n": "",
		"hush\n":    Wrong,
		"HEL":       Short,
		"":          EOF,
	} {
		t.Run(string(want), func(t *testing.T) {
			s := serve(t, func(conn *net.TCPConn, _ int) {
				bufio.NewReader(conn).ReadString('\n')
				conn.Write([]byte(answer))
			})
			r := mustRun(t, Load{Kind: Pause, Pause: 1, Addr: s.addr, Speak: shout, Max: 5})
			if want != "" {
				wantOnly(t, r, want, 5)
				return
			}
			wantAllOK(t, r, 5)
			if r.Generations["3"] != 5 || s.accepted() != 5 {
				t.Errorf("answered by %v on %d connections", r.Generations, s.accepted())
			}
		})
	}
}

func TestSpeakThatResets(t *testing.T) {
	s := serve(t, func(conn *net.TCPConn, _ int) { conn.SetLinger(0) })
	wantOnly(t, mustRun(t, Load{Kind: PerRequest, Addr: s.addr, Speak: shout, Max: 5}), ResetBefore, 5)
}

func TestSpeakNeedsNewConnections(t *testing.T) {
	for _, kind := range []Kind{KeepAlive, Echo} {
		if _, err := (Load{Kind: kind, Addr: "127.0.0.1:1", Speak: shout, Max: 1}).Run(t.Context()); err == nil {
			t.Errorf("%s was run", kind)
		}
	}
}
