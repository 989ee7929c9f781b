package event_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/flotilla-ha/flotilla/event"
)

// Merge orders by time, and takes events of one key for one.
func TestMerge(t *testing.T) {
	at := func(s int) time.Time { return time.Unix(int64(s), 0) }
	a := []event.Event{
		{Number: 1, Node: "a", Time: at(1), Kind: event.LeaderElected, Key: "term/2"},
		{Number: 2, Node: "a", Time: at(4), Kind: event.DiskFailed},
		{Number: 3, Node: "a", Time: at(4), Kind: event.DiskWorks},
	}
	b := []event.Event{
		{Number: 1, Node: "b", Time: at(2), Kind: event.LeaderElected, Key: "term/2"},
		{Number: 2, Node: "b", Time: at(3), Kind: event.DiskFailed},
		{Number: 3, Node: "b", Time: at(0), Kind: event.SessionOpened, Key: "7/session_opened/x"},
	}
	var got []string
	for _, e := range event.Merge(a, b) {
		got = append(got, fmt.Sprint(e.Node, e.Number))
	}
	if diff := cmp.Diff([]string{"b3", "a1", "b2", "a2", "a3"}, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if got := event.Merge(); len(got) != 0 {
		t.Errorf("of nothing it makes %v", got)
	}
}
