package bench

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"
)

// keptBody is how much of a body is kept for Check and Identify; the rest is
// read and counted against Content-Length, then dropped.
const keptBody = 1 << 20

// answer is a complete answer.
type answer struct {
	status   int
	header   http.Header
	body     []byte
	unframed bool // it ended where the connection did: a cut would not show
	close    bool // the server takes no more requests on this connection
}

// requestBytes is the request that the load sends each time.
func requestBytes(l *Load) []byte {
	host, connection := l.Addr, "close"
	if host == "" {
		host = "bench"
	}
	if l.Kind == KeepAlive {
		connection = "keep-alive"
	}
	return fmt.Appendf(nil, "GET %s HTTP/1.1\r\nHost: %s\r\nUser-Agent: gapless-bench\r\nAccept: */*\r\nConnection: %s\r\n\r\n",
		l.Path, host, connection)
}

// http sends the request and judges the answer.
func (c *client) http(o *outcome) *fault {
	c.pause()
	if _, err := c.conn.Write(c.request); err != nil {
		return failed(waiting, err)
	}
	a, fault := c.read()
	if fault != nil {
		return fault
	}
	o.unframed = a.unframed
	o.generation = c.load.Identify(a.header, a.body)
	if c.load.Kind == KeepAlive && a.close {
		c.close()
	}
	return c.judge(a)
}

func (c *client) pause() {
	if c.load.Pause > 0 {
		time.Sleep(c.load.Pause) // bounded, and a request in flight is finished
	}
}

func (c *client) judge(a *answer) *fault {
	if err := c.load.Check(a.status, a.header, a.body); err != nil {
		return &fault{class: Wrong, err: err}
	}
	if n := c.reader.Buffered(); n > 0 {
		return &fault{class: Wrong, err: fmt.Errorf("%d bytes after the end of the answer", n)}
	}
	return nil
}

// read takes one answer from the connection, to its last byte.
func (c *client) read() (*answer, *fault) {
	if _, err := c.reader.Peek(1); err != nil {
		return nil, failed(waiting, err)
	}
	response, err := c.readFinalHeader()
	if err != nil {
		return nil, failed(answered, c.conn.cause(err))
	}
	defer response.Body.Close()
	body, err := readBody(response.Body)
	if err != nil {
		err = c.conn.cause(err)
		return nil, failed(answered, fmt.Errorf("body cut after at least %d of %d bytes: %w", len(body), response.ContentLength, err))
	}
	return &answer{
		status:   response.StatusCode,
		header:   response.Header,
		body:     body,
		unframed: response.ContentLength < 0 && len(response.TransferEncoding) == 0,
		close:    response.Close,
	}, nil
}

// readFinalHeader skips interim answers (1xx), of which a sane server sends
// few.
func (c *client) readFinalHeader() (*http.Response, error) {
	for range 8 {
		response, err := http.ReadResponse(c.reader, nil)
		if err != nil {
			return nil, err
		}
		if response.StatusCode >= 200 || response.StatusCode == http.StatusSwitchingProtocols {
			return response, nil
		}
	}
	return nil, errors.New("more than 8 interim answers")
}

func readBody(r io.Reader) ([]byte, error) {
	kept, err := io.ReadAll(io.LimitReader(r, keptBody))
	if err == nil {
		_, err = io.Copy(io.Discard, r)
	}
	return kept, err
}
