package speed

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"
)

// bindRounds is how often one daemon binds its address.
const bindRounds = 200

// BenchmarkBind is what a daemon waits for its own bind(2) and listen(2), in which the
// holder finds out what it binds and has the socket join the others, beside the same
// calls without gapless. The first sockets of a daemon are as those of its later ones.
// Binding to whatever port is free, which clients do, is let through.
func BenchmarkBind(b *testing.B) {
	for b.Loop() {
		without, with := bindsAlone(b), bindsHeld(b)
		withoutMean(b)
		b.ReportMetric(without.Bind.median(b), "plain-bind-p50-ms")
		b.ReportMetric(with.Bind.median(b), "bind-p50-ms")
		b.ReportMetric(with.Bind.percentile(b, 99), "bind-p99-ms")
		b.ReportMetric(with.Listen.median(b), "listen-p50-ms")
		b.ReportMetric(with.Listen.percentile(b, 99), "listen-p99-ms")
		b.ReportMetric(without.Any.median(b), "plain-any-p50-ms")
		b.ReportMetric(with.Any.median(b), "any-p50-ms")
	}
}

func bindsHeld(b *testing.B) bindTimes {
	b.Helper()
	addr, file := freeAddr(b), filepath.Join(b.TempDir(), "times")
	hold(b, append([]string{"-l", "http=" + addr, "--"}, bindsCommand(addr, file)...)...)
	return mustBindTimes(b, file)
}

func bindsAlone(b *testing.B) bindTimes {
	b.Helper()
	file := filepath.Join(b.TempDir(), "times")
	command := bindsCommand(freeAddr(b), file)
	cmd := exec.Command(command[0], command[1:]...)
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	defer func() {
		cmd.Process.Kill()
		cmd.Wait()
	}()
	return mustBindTimes(b, file)
}

func bindsCommand(addr, file string) []string {
	return []string{os.Args[0], "binds", addr, file, strconv.Itoa(bindRounds)}
}

func mustBindTimes(b *testing.B, file string) bindTimes {
	b.Helper()
	t, err := readBindTimes(file, bounded(b, 30*time.Second).Done())
	if err != nil {
		b.Fatal(err)
	}
	return t
}
