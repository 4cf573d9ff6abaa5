//go:build !linux

package spawn

import "os"

func outputPipe() (r, w *os.File, err error) { return os.Pipe() }

func unread(*os.File) int { return 0 }
