package guard

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// The guard rehearses once what it will do with a death notice.
func TestRehearsal(t *testing.T) {
	if testing.Short() {
		t.Skip("a slow test: it runs without -short")
	}
	h := newHost(t, true)
	h.do("notice first")
	rehearsals := func() (n int) {
		for _, line := range h.said() {
			if strings.Contains(line, ": rehearsed first") {
				n++
			}
		}
		return n
	}
	h.awaitSaid(": rehearsed first")
	h.do("notice second")
	<-time.After(2 * rehearsalDelay)
	if n := rehearsals(); n != 1 {
		t.Errorf("%d rehearsals", n)
	}
	h.kill(unix.SIGKILL)
	h.ended()
	if diff := cmp.Diff([]string{"notice second"}, h.hooked()); diff != "" {
		t.Error(diff)
	}
}
