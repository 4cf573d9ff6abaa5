//go:build !linux

package activation

import "time"

func receivedWithin(int, time.Duration) bool { return false }
