//go:build !linux

package activation

func pidfdID() (uint64, bool) { return 0, false }
