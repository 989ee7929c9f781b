package clustertest_test

import (
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/flotilla-ha/flotilla/clustertest"
	"github.com/flotilla-ha/flotilla/internal/synctest"
)

// logging is a test that has failed, and what it logs.
type logging struct {
	testing.TB
	logged strings.Builder
}

func (f *logging) Failed() bool                    { return true }
func (f *logging) Logf(format string, args ...any) { fmt.Fprintf(&f.logged, format, args...) }

// A test that fails prints its seed, and what has happened in order.
func TestReport(t *testing.T) {
	if testing.Short() {
		t.Skip("a slow test: it runs without -short")
	}
	t.Setenv("CLUSTERTEST_SEED", "4711")
	synctest.Test(t, func(t *testing.T) {
		f := &logging{TB: t}
		t.Cleanup(func() { // after that of the cluster
			text := f.logged.String()
			t.Log(text)
			if !strings.Contains(text, "CLUSTERTEST_SEED=4711\n") {
				t.Error("the seed is missing")
			}
			for _, want := range []string{
				`0\.000  n0   starts`,
				`n\d   has a session`,
				`n\d   holds "r"`,
				`the test goes on`,
				`3\.\d{3}  n\d   fault: cut off from all others`,
				`n\d   the lease has expired`,
				`n\d   its session has ended`,
				`n\d   holds "r"`,
				`the network is mended`,
			} {
				at := regexp.MustCompile(want).FindStringIndex(text)
				if at == nil {
					t.Fatalf("there is no line with %q, or not in order", want)
				}
				text = text[at[1]:]
			}
		})
		c := clustertest.New(f, 3, nil)
		c.Settle()
		got, _ := hold(t, c.Nodes[0], "r")
		<-got
		next, _ := hold(t, c.Nodes[1], "r")
		c.Note("the test goes %s", "on")
		time.Sleep(time.Until(time.Date(2000, 1, 1, 0, 0, 3, 0, time.UTC)))
		c.Isolate(0)
		<-next
		c.Heal()
		c.Settle()
	})
}

// The trace has the newest lines, and says how many are missing.
func TestTraceIsBounded(t *testing.T) {
	synctest.Parallel(t)
	inBubble(t, func(t *testing.T, c *clustertest.Cluster) {
		for i := range 1000 {
			c.Note("note %d", i)
		}
		text := c.Trace()
		if n := strings.Count(text, "\n"); n != 201 {
			t.Errorf("%d lines, want 200 and what is missing", n)
		}
		if !strings.HasPrefix(text, "(") || !strings.Contains(text, "note 999") || strings.Contains(text, "note 700") {
			t.Errorf("the trace is %s", text)
		}
	})
}

// The environment sets the seed, and the seed the random numbers.
func TestSeed(t *testing.T) {
	draw := func(seed string) (n uint64) {
		t.Setenv("CLUSTERTEST_SEED", seed)
		synctest.Test(t, func(t *testing.T) { n = clustertest.New(t, 0, nil).Rand().Uint64() })
		return n
	}
	if a, b, c := draw("1"), draw("1"), draw("2"); a != b || a == c {
		t.Errorf("seed 1 draws %d and %d, seed 2 draws %d", a, b, c)
	}
	if a, b := draw(""), draw(""); a == b {
		t.Errorf("without a seed, two tests draw %d", a)
	}
}
