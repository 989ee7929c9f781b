package main

import (
	"net/netip"
	"testing"
)

// Only two answers to one question are two owners. An answer that is read late, or an owner that
// changes between two questions, is none.
func TestAnswersToOneQuestion(t *testing.T) {
	one, two := station{2, 1}, station{2, 2}
	addr, other := netip.MustParseAddr("198.18.0.101"), netip.MustParseAddr("198.18.0.102")
	for _, test := range []struct {
		name    string
		replies func(first, second station) []reply
		answers int
		most    int
	}{
		{"one owner", func(a, b station) []reply { return []reply{{addr, one, a}, {addr, one, b}} }, 2, 1},
		{"another owner from then on", func(a, b station) []reply { return []reply{{addr, one, a}, {addr, two, b}} }, 2, 1},
		{"the first answer is late", func(a, b station) []reply { return []reply{{addr, two, b}, {addr, one, a}} }, 2, 1},
		{"two owners", func(a, b station) []reply { return []reply{{addr, one, a}, {addr, one, b}, {addr, two, b}} }, 3, 2},
		{"to somebody else", func(a, _ station) []reply { return []reply{{addr, one, a}, {addr, two, station{2, 9}}} }, 1, 1},
		{"of another address", func(a, _ station) []reply { return []reply{{addr, one, a}, {other, two, a}} }, 1, 1},
	} {
		t.Run(test.name, func(t *testing.T) {
			w := &wire{targets: []netip.Addr{addr}, asked: make(map[station]*question)}
			for _, r := range test.replies(w.next(addr), w.next(addr)) {
				w.note(r)
			}
			if questions, answers, most := w.report(); questions != 2 || answers != test.answers || most != test.most {
				t.Errorf("%d questions, %d answers, at most %d owners; want 2, %d and %d", questions, answers, most, test.answers, test.most)
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
