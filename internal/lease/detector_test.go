package lease

import (
	"testing"
	"time"

	"github.com/flotilla-ha/flotilla/internal/state"
	"github.com/flotilla-ha/flotilla/internal/synctest"
)

// slowTerm is a term of node a. Its leader commits a suspicion of c while it looks at the sessions
// once more.
type slowTerm struct {
	*testTerm
	commit    chan struct{} // closed: proposals are committed
	suspected int           // how often c was
}

func (t *slowTerm) Late(node string, _ time.Time) bool {
	if node == "c" && t.suspected > 0 {
		close(t.commit)
		synctest.Wait() // the state has the suspicion, and nothing about c is under way
	}
	return node == "c"
}

func (t *slowTerm) Propose(change state.Change) error {
	if _, ok := change.(state.Suspect); ok {
		t.suspected++
	}
	<-t.commit
	t.n.c.change(change)
	return nil
}

// A change that is applied while the leader looks at the sessions is not proposed once more.
func TestNothingIsProposedTwice(t *testing.T) {
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		c := newTestCluster(t, []string{"a", "b", "c"}, []string{"a", "b", "c"})
		a := c.node("a")
		term := &slowTerm{testTerm: a.term().(*testTerm), commit: make(chan struct{})}
		d := newDetector(&a.cfg, a.voter, func() {})
		now := time.Now()
		d.evaluate(t.Context(), term, now, now.Add(-time.Second))
		synctest.Wait()
		d.evaluate(t.Context(), term, now, now.Add(-time.Second))
		synctest.Wait()
		if c.newest().Session("c").Suspect == 0 || term.suspected != 1 {
			t.Errorf("c was suspected %d times", term.suspected)
		}
	})
}
