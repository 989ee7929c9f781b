package term

import (
	"bytes"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/flotilla-ha/flotilla/internal/synctest"
)

func TestProgress(t *testing.T) {
	for _, tc := range []struct {
		name    string
		watched bool
		goal    Goal
		done    int64
		takes   time.Duration
		want    []string // the different texts, in order
	}{
		{"short, watched", true, Goal{}, 0, 1900 * time.Millisecond, nil},
		{"short, not watched", false, Goal{}, 0, 4900 * time.Millisecond, nil},
		{"time only", true, Goal{}, 0, 3100 * time.Millisecond, []string{"doing it: 2 s", "doing it: 3 s"}},
		{"time only, not watched", false, Goal{}, 0, 11 * time.Second, []string{"doing it: 5 s", "doing it: 10 s"}},
		{"things", true, Goal{Total: 40}, 12, 2500 * time.Millisecond, []string{"doing it: 30 %, 12 of 40, 2 s"}},
		{"bytes", false, Goal{Total: 40 << 20, Bytes: true}, 10 << 20, 6 * time.Second, []string{"doing it: 25 %, 10 MiB of 40 MiB, 5 s"}},
		{"an estimate", false, Goal{Total: 100, About: true, Bytes: true}, 50, 6 * time.Second, []string{"doing it: about 50 %, 50 bytes so far, 5 s"}},
		{"an estimate that was too low", false, Goal{Total: 100, About: true, Bytes: true}, 120, 6 * time.Second, []string{"doing it: about 99 %, 120 bytes so far, 5 s"}},
		{"a run that is looked at", false, Goal{Total: 100, About: true, Bytes: true, Done: func() int64 { return 70 }}, 50, 6 * time.Second, []string{"doing it: about 70 %, 70 bytes so far, 5 s"}},
		{"bytes of nobody knows how many", false, Goal{Bytes: true}, 20 << 10, 6 * time.Second, []string{"doing it: 20 KiB so far, 5 s"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var out bytes.Buffer
				p := StartProgress(&out, tc.watched, "doing it", tc.goal)
				p.Add(tc.done)
				time.Sleep(tc.takes)
				p.End()
				text := strings.ReplaceAll(out.String(), "\r\x1b[K", "")
				var got []string
				for _, line := range strings.FieldsFunc(text, func(r rune) bool { return r == '\r' || r == '\n' }) {
					line = strings.TrimSuffix(line, "\x1b[K")
					if len(got) == 0 || got[len(got)-1] != line {
						got = append(got, line)
					}
				}
				if diff := cmp.Diff(tc.want, got); diff != "" {
					t.Errorf("it shows (-want +got):\n%s", diff)
				}
				if removed := strings.HasSuffix(out.String(), "\r\x1b[K"); removed != (tc.watched && tc.want != nil) {
					t.Errorf("the line at the end: removed is %v", removed)
				}
			})
		})
	}
}

// A run has steps. What is read and written counts, and the end of the input begins the next step.
func TestProgressSteps(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		p := StartProgress(&out, false, "reading", Goal{Total: 8, Bytes: true})
		r := p.Reader(io.MultiReader(strings.NewReader("1234"), waiting(6*time.Second), strings.NewReader("5678")), func() {
			p.Next("writing", Goal{Bytes: true})
		})
		all, err := io.ReadAll(r)
		if string(all) != "12345678" || err != nil {
			t.Errorf("it reads %q: %v", all, err)
		}
		if _, err := io.WriteString(p.Writer(io.Discard), "123"); err != nil {
			t.Error(err)
		}
		time.Sleep(5 * time.Second)
		p.End()
		if got, want := out.String(), "reading: 50 %, 4 bytes of 8 bytes, 5 s\nwriting: 3 bytes so far, 10 s\n"; got != want {
			t.Errorf("it shows %q, want %q", got, want)
		}
	})
}

// waiting is an input that is empty, and says so after a while.
type waiting time.Duration

func (w waiting) Read([]byte) (int, error) {
	time.Sleep(time.Duration(w))
	return 0, io.EOF
}
