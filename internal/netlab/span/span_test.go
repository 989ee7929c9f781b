package span

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// at returns a time that many milliseconds after a fixed one.
func at(ms int) time.Time { return time.Unix(1000, 0).Add(time.Duration(ms) * time.Millisecond) }

// periods makes periods of pairs of milliseconds.
func periods(ms ...int) (all []Span) {
	for i := 0; i+1 < len(ms); i += 2 {
		all = append(all, Span{at(ms[i]), at(ms[i+1])})
	}
	return all
}

func TestSpans(t *testing.T) {
	for _, test := range []struct {
		name      string
		got, want []Span
	}{
		{"union", Union(periods(30, 40, 0, 10, 5, 20, 20, 25)), periods(0, 25, 30, 40)},
		{"union of what is within", Union(periods(0, 50, 10, 20)), periods(0, 50)},
		{"intersection", Intersect(periods(0, 10, 20, 30), periods(5, 25)), periods(5, 10, 20, 25)},
		{"what only touches", Intersect(periods(0, 10), periods(10, 20)), nil},
		{"gaps", Gaps(periods(0, 100)[0], periods(20, 30, 25, 50, 90, 120)), periods(0, 20, 50, 90)},
		{"gaps of nothing", Gaps(periods(0, 100)[0], nil), periods(0, 100)},
		{"gaps of all", Gaps(periods(10, 20)[0], periods(0, 100)), nil},
		{"one owner after another", Overlaps([][]Span{periods(0, 10), periods(10, 20)}), nil},
		{"two of three owners", Overlaps([][]Span{periods(0, 10), periods(5, 20), periods(18, 30)}), periods(5, 10, 18, 20)},
		{"three owners", Overlaps([][]Span{periods(0, 10), periods(0, 10), periods(5, 15)}), periods(0, 10)},
	} {
		t.Run(test.name, func(t *testing.T) {
			if diff := cmp.Diff(test.want, test.got); diff != "" {
				t.Error(diff)
			}
		})
	}
	want := Extent{Total: 25 * time.Millisecond, Longest: 20 * time.Millisecond}
	if got := ExtentOf(periods(0, 10, 5, 20, 30, 35)); got != want {
		t.Errorf("extent %v, want %v", got, want)
	}
}
