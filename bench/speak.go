package bench

import (
	"errors"
	"io"
	"net"
)

// speak has the load's own words exchanged, and judges what came of them.
func (c *client) speak(o *outcome) *fault {
	c.pause()
	generation, err := c.load.Speak(c.conn)
	o.generation = generation
	switch {
	case err == nil:
		return nil
	case !ofConnection(err):
		return &fault{class: Wrong, err: err}
	case c.conn.read:
		return failed(answered, err)
	}
	return failed(waiting, err)
}

// ofConnection: the connection says so, not who reads what came.
func ofConnection(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
}
