// Package systemd has the unit file for users who have systemd look after gapless,
// and its tests: a real systemd runs it.
package systemd
