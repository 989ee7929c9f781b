package diagnosis

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/flotilla-ha/flotilla/internal/testlog"
)

// A Journal has what the program's log has, with attributes and groups, and not what its level
// leaves out.
func TestJournal(t *testing.T) {
	var j Journal
	var level slog.LevelVar
	var out bytes.Buffer
	l := j.Logger(testlog.At(&out, &level))
	l.Debug("no")
	l.With("a", 1).WithGroup("g").Info("x", "b", time.Second, "c", errors.New("d"), "e", []string{"f"})
	level.Set(slog.LevelDebug)
	l.Debug("y")
	if diff := cmp.Diff("level=INFO msg=x a=1 g.b=1s g.c=d g.e=[f]\nlevel=DEBUG msg=y\n", out.String()); diff != "" {
		t.Errorf("the program's log (-want +got):\n%s", diff)
	}
	var kept []string
	for line := range strings.Lines(j.Text()) {
		_, text, _ := strings.Cut(line, ",") // without the time
		kept = append(kept, text)
	}
	want := []string{`"level":"INFO","msg":"x","a":1,"g":{"b":"1s","c":"d","e":"[f]"}}` + "\n", `"level":"DEBUG","msg":"y"}` + "\n"}
	if diff := cmp.Diff(want, kept); diff != "" {
		t.Errorf("what is kept (-want +got):\n%s", diff)
	}
}

// The newest lines stay, however much is logged, by however many goroutines.
func TestJournalIsBounded(t *testing.T) {
	var j Journal
	l := j.Logger(slog.New(slog.NewTextHandler(new(bytes.Buffer), nil)))
	var writers sync.WaitGroup
	for range 4 {
		writers.Go(func() {
			for range 2000 {
				l.Info("x", "text", strings.Repeat("y", 100))
			}
		})
	}
	writers.Wait()
	l.Info(strings.Repeat("é", maxJournal))
	l.Info("last")
	text := j.Text()
	if n := len(text); n > maxJournal || n < maxJournal-4*maxText {
		t.Errorf("%d bytes are kept, of %d", n, maxJournal)
	}
	if !strings.HasSuffix(text, `"msg":"last"}`+"\n") {
		t.Errorf("it begins with %.40q, and ends with %q", text, text[len(text)-40:])
	}
	for line := range strings.Lines(text) {
		if len(line) > 2*maxText || !json.Valid([]byte(line)) {
			t.Fatalf("a line of %d bytes: %.80q", len(line), line)
		}
	}
}

func BenchmarkJournal(b *testing.B) {
	for _, level := range []slog.Level{slog.LevelDebug, slog.LevelInfo} {
		b.Run(fmt.Sprint(level), func(b *testing.B) {
			var j Journal
			l := j.Logger(testlog.To(new(bytes.Buffer), slog.LevelInfo))
			b.ReportAllocs()
			for b.Loop() {
				l.Log(b.Context(), level, "a node is gone; what it held is free", "node", "n1", "session", 17)
			}
		})
	}
}
