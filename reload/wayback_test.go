package reload

import (
	"testing"
	"time"
)

// What was gone back to at once stays what it is, too: its replacement after a crash
// is no new version, though the links lead to one.
func TestReplacementOfOneThatIsLiveAgain(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	release(t, root+"/1")
	point(t, root+"/current", root+"/1")
	cfg := config(t)
	cfg.Command[0], cfg.Dir, cfg.Probation = "./web", root+"/current", time.Minute
	f := start(t, cfg)
	f.until("generation 1", live(1))
	release(t, root+"/2")
	point(t, root+"/current", root+"/2")
	f.Trigger(ReloadOptions{Reason: "deploy"})
	f.until("generation 2", live(2))
	f.get("/die")
	f.until("generation 1 again", live(1))
	f.get("/die")
	f.until("its replacement", live(3))
	if got := f.get("/cwd"); got != root+"/1" {
		t.Errorf("it runs in %q", got)
	}
}

// Live crashes while a rollback is under way: the next one goes forth to what it was.
func TestRollbackAfterACrashMeanwhile(t *testing.T) {
	t.Parallel()
	f, root := released(t)
	f.deploy(root, "2")
	f.get("/die") // and nobody is live until generation 3 is
	if st := f.until("its replacement", live(3)); st.Previous != 1 {
		t.Errorf("the previous one is %d", st.Previous)
	}
	if _, err := f.rollback(); err != nil {
		t.Fatal(err)
	}
	if got := f.get("/cwd"); got != root+"/1" {
		t.Errorf("it runs in %q", got)
	}
}
