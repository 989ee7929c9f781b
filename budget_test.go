package flotilla_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/flotilla-ha/flotilla"
	"github.com/flotilla-ha/flotilla/clustertest"
	"github.com/flotilla-ha/flotilla/internal/synctest"
)

// fill stores records of a program until there is no room for another byte.
func fill(t *testing.T, s *flotilla.Storage) {
	t.Helper()
	for size, i := 64<<10, 0; size > 0; i++ {
		err := s.Store(t.Context(), fmt.Sprintf("fill/%06d", i), make([]byte, size))
		if errors.Is(err, flotilla.ErrTooLarge) {
			size /= 4
		} else if err != nil {
			t.Fatal(err)
		}
	}
}

// claimAll waits for roles, and takes locks, with long names until there is no room for another.
func claimAll(t *testing.T, n *flotilla.Node) {
	t.Helper()
	long := strings.Repeat("x", flotilla.MaxName-20)
	for i := 0; ; i++ {
		err := n.Storage().Lock(t.Context(), fmt.Sprint(long, i))
		if errors.Is(err, flotilla.ErrTooLarge) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	for i := 0; i < 300; i++ { // names of all lengths: nothing fits any more
		n.Storage().TryLock(t.Context(), fmt.Sprint(long[:i], "-", i))
	}
}

// A program that stores, and locks, all that it can stops no certificate, no lock of certmagic, no
// record that is there and no deletion; and what it stores stops no role.
func TestProgramsStopNothing(t *testing.T) {
	flotilla.SkipShort(t)
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		c := clustertest.New(t, 3, func(_ int, cfg *flotilla.Config) { cfg.MaxState = 1 << 20 })
		c.Settle()
		n := c.Nodes[0]
		s := n.Storage()
		const site = "certificates/ca/a.test/a.test"
		fill(t, s)
		if err := s.Store(t.Context(), "one more", make([]byte, 64)); !errors.Is(err, flotilla.ErrTooLarge) || !strings.Contains(err.Error(), "records of programs") || !strings.Contains(err.Error(), "MaxState") {
			t.Errorf("one more record: %v", err)
		}
		if err := n.Hold(t.Context(), flotilla.Role{Name: "r"}, func(context.Context, flotilla.Tenure) error { return nil }); err != nil {
			t.Errorf("a role: %v", err)
		}
		if err := s.Lock(t.Context(), "a program's lock"); err != nil {
			t.Errorf("a program's lock: %v", err)
		}
		claimAll(t, n)
		if err := n.Hold(t.Context(), flotilla.Role{Name: "r"}, func(context.Context, flotilla.Tenure) error { return nil }); !errors.Is(err, flotilla.ErrTooLarge) {
			t.Errorf("a role after the program has taken all locks that it can: %v", err)
		}
		for _, lock := range []string{"issue_cert_a.test", "register_acme_account_x", "ari_x", "storage_clean"} {
			if err := s.Lock(t.Context(), lock); err != nil {
				t.Errorf("lock %s: %v", lock, err)
			}
		}
		for _, part := range []string{".key", ".crt", ".json"} {
			if err := s.Store(t.Context(), site+part, make([]byte, 4<<10)); err != nil {
				t.Errorf("%s: %v", part, err)
			}
		}
		if err := s.Unlock(t.Context(), "issue_cert_a.test"); err != nil {
			t.Error(err)
		}
		for _, key := range []string{"acme/ca/users/a@b/a.json", "acme/ca/challenge_tokens/a.test.json", "ocsp/a", "last_clean.json"} {
			if err := s.Store(t.Context(), key, []byte("x")); err != nil {
				t.Errorf("%s: %v", key, err)
			}
		}
		if err := s.Store(t.Context(), "fill/000000", make([]byte, 64<<10)); err != nil {
			t.Errorf("a record of the same size in place of one: %v", err)
		}
		if err := s.Delete(t.Context(), "fill"); err != nil {
			t.Errorf("deleting: %v", err)
		}
		if err := s.Store(t.Context(), "one more", make([]byte, 64)); err != nil {
			t.Errorf("after deleting: %v", err)
		}
		c.Kill(0)
		c.Restart(0) // what is counted is counted from a log and snapshots too
		c.Settle()
		if got, want := fmt.Sprint(c.Nodes[0].Status().Space), fmt.Sprint(c.Nodes[1].Status().Space); got != want && c.Nodes[0].Status().Index == c.Nodes[1].Status().Index {
			t.Errorf("after a restart the state has %s, elsewhere %s", got, want)
		}
	})
}

// counts is a slog.Handler that counts records of a message by level.
type counts struct {
	slog.Handler
	mu   sync.Mutex
	said map[string]int
}

func (c *counts) Enabled(context.Context, slog.Level) bool { return true }
func (c *counts) WithAttrs([]slog.Attr) slog.Handler       { return c }
func (c *counts) Handle(_ context.Context, r slog.Record) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.said[r.Level.String()+" "+r.Message]++
	return nil
}

func (c *counts) of(level slog.Level, part string) (n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for text, times := range c.said {
		if strings.HasPrefix(text, level.String()+" ") && strings.Contains(text, part) {
			n += times
		}
	}
	return n
}

// A state that gets full is reported in the log and in the status before it is full, and once each
// time.
func TestSpaceWarns(t *testing.T) {
	flotilla.SkipShort(t)
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		log := &counts{said: make(map[string]int)}
		c := clustertest.New(t, 1, func(_ int, cfg *flotilla.Config) { cfg.MaxState, cfg.Logger = 1<<20, slog.New(log) })
		c.Settle()
		n := c.Nodes[0]
		percent := func(want int) {
			t.Helper()
			if err := n.Storage().Store(t.Context(), "k", make([]byte, (want<<20)/100)); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Second)
			for _, s := range n.Status().Space {
				if s.What == "records of programs" && (s.Percent() != want && s.Percent() != want-1 || (s.Warning() != "") != (s.Percent() >= 80) || s.Full() != (s.Percent() >= 95)) {
					t.Errorf("%+v, %d %%, full %v, %q; want %d %%", s, s.Percent(), s.Full(), s.Warning(), want)
				}
			}
		}
		for _, step := range []struct{ percent, warned, shouted, calmed int }{
			{50, 0, 0, 0}, {82, 1, 0, 0}, {78, 1, 0, 0}, {85, 1, 0, 0}, {97, 1, 1, 0}, {92, 1, 1, 0}, {97, 1, 1, 0}, {88, 1, 1, 1}, {70, 1, 1, 2}, {90, 2, 1, 2},
		} {
			percent(step.percent)
			got := [3]int{log.of(slog.LevelWarn, "getting full"), log.of(slog.LevelError, "hardly any room"), log.of(slog.LevelInfo, "more room")}
			if want := [3]int{step.warned, step.shouted, step.calmed}; got != want {
				t.Errorf("at %d %%: %v, want %v", step.percent, got, want)
			}
		}
		w := httptest.NewRecorder()
		n.Health().ServeHTTP(w, httptest.NewRequest("GET", "/status", nil))
		var s flotilla.Status
		if err := json.Unmarshal(w.Body.Bytes(), &s); err != nil || len(s.Space) != 5 {
			t.Errorf("/status: %v, %+v", err, s.Space)
		}
	})
}

// No key of a program stands in the way of what certmagic and flotilla keep, however it is written.
func TestMisplacedKeys(t *testing.T) {
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		c := clustertest.New(t, 1, nil)
		c.Settle()
		s := c.Nodes[0].Storage()
		for _, key := range []string{
			"certificates", "./certificates", "/certificates", "certificates/", "a/../certificates", "certificates/ca", "certificates/ca/a.test", "certificates//ca/a.test/",
			"certificates/ca/a.test/a.test.key/x", "acme", "acme/ca", "acme/ca/users", "acme/ca/users/me@a.test", "acme/ca/challenge_tokens", "acme/ca/challenge_tokens/a.json/x",
			"acme/ca/users/me@a.test/me.json/x", "ocsp", "ocsp/a/b", "locks", "flotilla", "flotilla/.", "last_clean.json/x",
		} {
			if err := s.Store(t.Context(), key, []byte("x")); !errors.Is(err, fs.ErrInvalid) || !strings.Contains(err.Error(), "in the way") {
				t.Errorf("%q: %v", key, err)
			}
		}
		for _, key := range []string{"..", "../x", "/../x", "a/../../certificates", "../certificates/ca/a.test/a.test.key"} {
			for what, err := range map[string]error{
				"store": s.Store(t.Context(), key, nil), "load": second(s.Load(t.Context(), key)), "delete": s.Delete(t.Context(), key),
				"list": second(s.List(t.Context(), key, true)), "stat": second(s.Stat(t.Context(), key)),
			} {
				if !errors.Is(err, fs.ErrInvalid) || !strings.Contains(err.Error(), "leads out of the storage") {
					t.Errorf("%s %q: %v", what, key, err)
				}
			}
		}
		for key, want := range map[string]error{"a\x00b": fs.ErrInvalid, strings.Repeat("k", flotilla.MaxName+1): flotilla.ErrTooLarge, "": fs.ErrInvalid, "a/..": fs.ErrInvalid} {
			if err := s.Store(t.Context(), key, nil); !errors.Is(err, want) {
				t.Errorf("%q: %v, want %v", key, err, want)
			}
		}
		for _, key := range []string{"Certificates", "certificates.txt", "acmes", "x/certificates", "a\xffb", "..x/y", "Acme/ca"} {
			if err := s.Store(t.Context(), key, []byte("x")); err != nil {
				t.Errorf("%q: %v", key, err)
			}
			if got, err := s.Load(t.Context(), key); string(got) != "x" || err != nil {
				t.Errorf("%q: %q, %v", key, got, err)
			}
		}
		if err := s.Store(t.Context(), "certificates/ca/a.test/a.test.key", []byte("x")); err != nil {
			t.Error(err)
		}
	})
}
