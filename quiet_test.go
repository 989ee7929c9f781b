package flotilla_test

import (
	"context"
	"log/slog"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/flotilla-ha/flotilla"
	"github.com/flotilla-ha/flotilla/clustertest"
	"github.com/flotilla-ha/flotilla/internal/remote"
	"github.com/flotilla-ha/flotilla/internal/synctest"
)

// loud is a slog.Handler that keeps what is above INFO, and what names a node by its ID alone.
type loud struct {
	mu    sync.Mutex
	lines []string
}

func (l *loud) logger(t *testing.T) *slog.Logger {
	text := slog.NewTextHandler(lineWriter(func(line string) {
		t.Log(line)
		if strings.Contains(line, "level=WARN") || strings.Contains(line, "level=ERROR") || bareID(line) {
			l.mu.Lock()
			defer l.mu.Unlock()
			l.lines = append(l.lines, line)
		}
	}), nil)
	return slog.New(text)
}

type lineWriter func(string)

func (w lineWriter) Write(p []byte) (int, error) {
	w(strings.TrimRight(string(p), "\n"))
	return len(p), nil
}

// bareID reports whether a line has the ID of a node in full, without its name beside it.
func bareID(line string) bool {
	id := regexp.MustCompile(`\b[0-9a-f]{32}\b`)
	return id.MatchString(strings.Join(slices.DeleteFunc(strings.Fields(line), func(word string) bool { return strings.HasPrefix(word, "cluster=") }), " "))
}

func (l *loud) report(t *testing.T, what string) {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, line := range l.lines {
		t.Errorf("%s: %s", what, line)
	}
	l.lines = nil
}

// Whatever an operator plans is no warning, on any node, and a line that names a node has its name.
func TestPlannedEventsAreNoWarnings(t *testing.T) {
	flotilla.SkipShort(t)
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		var log loud
		c := clustertest.New(t, 3, func(_ int, cfg *flotilla.Config) { cfg.Logger = log.logger(t) })
		c.Settle()
		time.Sleep(10 * time.Second)
		log.report(t, "forming a cluster")
		role := flotilla.Role{Name: "r"}
		holding := func(i int) {
			n := c.Nodes[i]
			go func() {
				for n.Hold(context.Background(), role, func(ctx context.Context, _ flotilla.Tenure) error {
					<-ctx.Done()
					return nil
				}) != flotilla.ErrClosed {
				}
			}()
		}
		for i := range c.Nodes {
			holding(i)
		}
		follower := func() int { return (c.Leader() + 1) % 3 }
		restart := func(i int, away time.Duration) {
			c.Stop(i)
			time.Sleep(away)
			c.Restart(i)
			holding(i)
			c.Settle()
			time.Sleep(10 * time.Second)
		}
		for _, away := range []time.Duration{0, 3 * time.Second, time.Minute} {
			restart(follower(), away)
			log.report(t, "restart of a follower after "+away.String())
			restart(c.Leader(), away)
			log.report(t, "restart of the leader after "+away.String())
			for i := range 3 {
				restart(i, away)
			}
			log.report(t, "rolling restart, "+away.String()+" each")
		}
		client := office(t, c, 0)
		leader := c.Leader()
		got, err := client.Transfer(t.Context(), remote.TransferRequest{From: c.Nodes[leader].Status().ID, To: c.Nodes[(leader+1)%3].Status().ID})
		wantAnswer(t, "transfer", got, err, false, "")
		time.Sleep(10 * time.Second)
		log.report(t, "transfer")
		added := c.Add(nil)
		c.Settle()
		time.Sleep(30 * time.Second)
		log.report(t, "join")
		c.Leave(added)
		time.Sleep(10 * time.Second)
		log.report(t, "leave")
		c.Settle()
		if err := c.Nodes[0].Move(t.Context(), "r", ""); err != nil {
			t.Fatal(err)
		}
		time.Sleep(5 * time.Second)
		log.report(t, "move")
		for _, undo := range []bool{false, true} {
			got, err := client.Drain(t.Context(), remote.DrainRequest{Node: c.Nodes[1].Status().ID, Undo: undo})
			wantAnswer(t, "drain", got, err, false, "")
			time.Sleep(5 * time.Second)
		}
		log.report(t, "drain")
	})
}

// A death that nobody has planned is a warning, with the node's name, and is not repeated for ever.
func TestDeathIsAWarning(t *testing.T) {
	flotilla.SkipShort(t)
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		var log loud
		c := clustertest.New(t, 3, func(_ int, cfg *flotilla.Config) { cfg.Logger = log.logger(t) })
		c.Settle()
		time.Sleep(10 * time.Second)
		dead := (c.Leader() + 1) % 3
		name := c.Config(dead).Name
		c.Kill(dead)
		time.Sleep(5 * time.Minute)
		log.mu.Lock()
		defer log.mu.Unlock()
		told := 0
		for _, line := range log.lines {
			if strings.Contains(line, "level=WARN") && strings.Contains(line, "a node is gone") && strings.Contains(line, name+" (") {
				told++
			}
		}
		if told != 1 || len(log.lines) > 20 {
			t.Errorf("%d lines tell that %s is gone, want 1; %d lines are loud, want 20 at most:\n%s", told, name, len(log.lines), strings.Join(log.lines, "\n"))
		}
	})
}
