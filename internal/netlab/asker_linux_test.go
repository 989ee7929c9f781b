package netlab

import (
	"net/netip"
	"testing"
	"time"

	"github.com/flotilla-ha/flotilla/internal/netlab/frame"
	"github.com/flotilla-ha/flotilla/internal/netlab/span"
)

// A client that has to wait before it sends a question gets the answer of a later owner. That is no
// contradiction to what another client heard meanwhile.
func TestQuestionSentLate(t *testing.T) {
	addr := netip.MustParseAddr("10.77.0.50")
	old, next := frame.MAC{1}, frame.MAC{2}
	began := time.Now().Add(-time.Minute)
	ms := func(n int) time.Time { return began.Add(time.Duration(n) * time.Millisecond) }
	type question struct {
		at, sent int // in milliseconds
		owner    frame.MAC
	}
	asks := func(all ...question) *asker {
		a := &asker{interval: 5 * time.Millisecond, questions: make(map[netip.Addr][]asked)}
		for _, q := range all {
			a.questions[addr] = append(a.questions[addr], asked{ms(q.at), ms(q.sent), []frame.MAC{q.owner}})
		}
		return a
	}
	one := asks(question{0, 0, old}, question{10, 10, old}, question{30, 30, old})
	whole := span.Span{From: began, To: ms(1000)}
	for _, test := range []struct {
		name  string
		other *asker
		want  time.Duration
	}{
		{"sent late", asks(question{5, 45, next}, question{50, 50, next}), 0},
		{"sent at once", asks(question{5, 5, next}, question{50, 50, next}), 25 * time.Millisecond},
		{"the first was late", asks(question{5, 12, next}, question{50, 50, next}), 18 * time.Millisecond},
		{"a single answer", asks(question{5, 12, next}), 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			both := contradictions(one.answers(addr, whole), test.other.answers(addr, whole))
			if got := span.ExtentOf(both).Longest; got != test.want {
				t.Errorf("the clients contradict each other for %v, want %v", got, test.want)
			}
		})
	}
}
