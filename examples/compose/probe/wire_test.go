package main

import (
	"net/netip"
	"testing"

	"github.com/flotilla-ha/flotilla/internal/netlab/frame"
)

// Only two answers to one question show two owners. A late answer, or an owner that changes between
// two questions, does not.
func TestAnswersToOneQuestion(t *testing.T) {
	one, two := frame.MAC{2, 1}, frame.MAC{2, 2}
	addr, other := netip.MustParseAddr("198.18.0.101"), netip.MustParseAddr("198.18.0.102")
	answer := func(addr netip.Addr, from, to frame.MAC) frame.Claim {
		return frame.Claim{Addr: addr, MAC: from, Asked: true, To: to}
	}
	for _, test := range []struct {
		name    string
		replies func(first, second frame.MAC) []frame.Claim
		answers int
		most    int
	}{
		{"one owner", func(a, b frame.MAC) []frame.Claim {
			return []frame.Claim{answer(addr, one, a), answer(addr, one, b)}
		}, 2, 1},
		{"another owner from then on", func(a, b frame.MAC) []frame.Claim {
			return []frame.Claim{answer(addr, one, a), answer(addr, two, b)}
		}, 2, 1},
		{"the first answer is late", func(a, b frame.MAC) []frame.Claim {
			return []frame.Claim{answer(addr, two, b), answer(addr, one, a)}
		}, 2, 1},
		{"two owners", func(a, b frame.MAC) []frame.Claim {
			return []frame.Claim{answer(addr, one, a), answer(addr, one, b), answer(addr, two, b)}
		}, 3, 2},
		{"to another tag", func(a, _ frame.MAC) []frame.Claim {
			return []frame.Claim{answer(addr, one, a), answer(addr, two, frame.MAC{2, 9})}
		}, 1, 1},
		{"for another address", func(a, _ frame.MAC) []frame.Claim {
			return []frame.Claim{answer(addr, one, a), answer(other, two, a)}
		}, 1, 1},
	} {
		t.Run(test.name, func(t *testing.T) {
			w := &wire{targets: []netip.Addr{addr}, asked: make(map[frame.MAC]*question)}
			for _, c := range test.replies(w.next(addr), w.next(addr)) {
				w.observe(c)
			}
			questions, answers, most := w.report()
			if questions != 2 || answers != test.answers || most != test.most {
				t.Errorf("%d questions, %d answers, at most %d owners; want 2, %d and %d",
					questions, answers, most, test.answers, test.most)
			}
			for range 10 * wireKeeps {
				w.next(addr)
			}
			if len(w.asked) > wireKeeps {
				t.Errorf("%d questions are kept, want at most %d", len(w.asked), wireKeeps)
			}
		})
	}
}
