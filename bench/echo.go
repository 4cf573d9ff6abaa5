package bench

import (
	"bytes"
	"fmt"
	"math/rand/v2"
)

// maxBlock is the largest block that Echo sends: more than a server reads at
// once, so that a block is cut if the connection is cut.
const maxBlock = 48 << 10

// block makes the next block, 1 to maxBlock random bytes.
func (c *client) block() []byte {
	if c.random == nil {
		c.random = rand.NewChaCha8([32]byte{byte(c.id), byte(c.id >> 8), byte(c.id >> 16)})
	}
	size := 1 + int(c.random.Uint64()%maxBlock)
	block := make([]byte, size)
	_, _ = c.random.Read(block) // never fails, by its documentation
	return block
}

// echo sends a block and wants it back. It writes and reads at once: a server
// that answers before it has read all must not block us, nor we it.
func (c *client) echo() *fault {
	sent := c.block()
	wrote := make(chan error, 1)
	go c.writeBlock(sent, wrote)
	fault := c.readBack(sent)
	if fault != nil {
		c.conn.Close() // frees the writer; exchange forgets the connection
	}
	if err := <-wrote; err != nil && fault == nil {
		return failed(answered, err)
	}
	return fault
}

func (c *client) writeBlock(block []byte, done chan<- error) {
	_, err := c.conn.Write(block)
	done <- err
}

// readBack compares what returns piece by piece, so that a wrong byte is
// called wrong even if the connection ends right after it.
func (c *client) readBack(sent []byte) *fault {
	buf := make([]byte, 16<<10)
	at := waiting
	for got := 0; got < len(sent); {
		n, err := c.reader.Read(buf[:min(len(buf), len(sent)-got)])
		if !bytes.Equal(buf[:n], sent[got:got+n]) {
			return &fault{class: Wrong, err: fmt.Errorf("wrong byte within %d bytes after %d of %d", n, got, len(sent))}
		}
		got += n
		if got > 0 {
			at = answered
		}
		if err != nil && got < len(sent) {
			return failed(at, fmt.Errorf("%d of %d bytes came back: %w", got, len(sent), err))
		}
	}
	return nil // a byte too many is found before the next block
}
