package events

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/flotilla-ha/flotilla/event"
	"github.com/flotilla-ha/flotilla/internal/state"
	"github.com/flotilla-ha/flotilla/internal/synctest"
)

func newLog() *Log {
	names := map[string]string{"a1": "alpha", "b1": "bravo"}
	l := New(func(id string) string { return names[id] })
	l.SetNode("alpha")
	return l
}

// A Log keeps the newest events under rising numbers, and cuts long texts.
func TestKeepsTheNewest(t *testing.T) {
	l := newLog()
	for i := range Kept + 10 {
		l.Add(event.Event{Kind: event.WaitBegun, Subject: fmt.Sprint(i)})
	}
	all := l.After(0)
	if len(all) != Kept || all[0].Number != 11 || all[0].Subject != "10" || all[Kept-1].Number != Kept+10 {
		t.Errorf("it keeps %d, from %d (%s) to %d", len(all), all[0].Number, all[0].Subject, all[len(all)-1].Number)
	}
	for _, tc := range []struct{ after, first uint64 }{{11, 12}, {Kept + 9, Kept + 10}, {3, 11}} {
		if got := l.After(tc.after); got[0].Number != tc.first {
			t.Errorf("after %d the first is %d, not %d", tc.after, got[0].Number, tc.first)
		}
	}
	if got := l.After(Kept + 10); len(got) != 0 {
		t.Errorf("after the newest there are %d", len(got))
	}
	l.Add(event.Event{Kind: event.OrderRefused, Cause: strings.Repeat("x", 5000)})
	if got := l.After(Kept + 10); len(got) != 1 || len(got[0].Cause) > maxText+4 {
		t.Errorf("a text of 5000 bytes has %d", len(got[0].Cause))
	}
	counts := fmt.Sprint(l.Counts())
	if counts != fmt.Sprintf("[{[order_refused] 1} {[wait_begun] %d}]", Kept+10) {
		t.Errorf("the counts are %s", counts)
	}
}

// All yields what is kept, then what comes, and ends with either context.
func TestAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLog()
		l.Add(event.Event{Kind: event.WaitBegun})
		for _, ends := range []string{"call", "node", "loop"} {
			ctx, endCall := context.WithCancel(t.Context())
			open, endNode := context.WithCancel(t.Context())
			var got []uint64
			done := make(chan struct{})
			go func() {
				defer close(done)
				for e := range l.All(ctx, open) {
					if got = append(got, e.Number); ends == "loop" && len(got) == 2 {
						return
					}
				}
			}()
			synctest.Wait()
			first := got[0]
			l.Add(event.Event{Kind: event.WaitEnded})
			synctest.Wait()
			if len(got) < 2 || got[len(got)-1] != got[len(got)-2]+1 || first != 1 {
				t.Errorf("%s: it yields %v", ends, got)
			}
			switch ends {
			case "call":
				endCall()
			case "node":
				endNode()
			}
			<-done
			endCall()
			endNode()
		}
	})
}

// A record with a kind is an event, with subject, cause and severity, whatever the logger's level.
func TestRecords(t *testing.T) {
	for _, tc := range []struct {
		name string
		log  func(*slog.Logger)
		want []event.Event
	}{
		{"subject and cause", func(l *slog.Logger) {
			l.Warn("no certificate", "event", event.OrderRefused, "domain", "a.test", "error", errors.New("no"), "in", time.Second)
		}, []event.Event{{Kind: event.OrderRefused, Text: "no certificate", Subject: "a.test", Cause: "no", Severity: event.Warn}}},
		{"no subject", func(l *slog.Logger) { l.Error("it hangs", "event", event.DiskHangs) },
			[]event.Event{{Kind: event.DiskHangs, Text: "it hangs", Severity: event.Error}}},
		{"a detail is no subject", func(l *slog.Logger) { l.Info("works", "event", event.DiskWorks, "after", time.Second) },
			[]event.Event{{Kind: event.DiskWorks, Text: "works", Severity: event.Info}}},
		{"the cause is no subject", func(l *slog.Logger) { l.Info("lost", "event", event.LeaseLost, "why", "slow", "a", "b") },
			[]event.Event{{Kind: event.LeaseLost, Text: "lost", Cause: "slow", Severity: event.Info}}},
		{"another attribute first", func(l *slog.Logger) { l.Info("x", "node", "n", "event", event.ClockWrong, "peer", "b") },
			[]event.Event{{Kind: event.ClockWrong, Text: "x", Subject: "b", Severity: event.Info}}},
		{"debug", func(l *slog.Logger) { l.Debug("x", "event", event.ClockWrong) }, nil},
		{"no kind", func(l *slog.Logger) { l.Warn("x", "event", "else") }, nil},
	} {
		for _, level := range []slog.Level{slog.LevelInfo, slog.LevelError + 1} {
			t.Run(fmt.Sprint(tc.name, " ", level), func(t *testing.T) {
				log := newLog()
				tc.log(log.Logger(slog.New(slog.NewTextHandler(io.Discard, &slog.HandlerOptions{Level: level}))).With("a", 1).WithGroup(""))
				if diff := cmp.Diff(tc.want, log.After(0), cmpopts.IgnoreFields(event.Event{}, "Number", "Time", "Node")); diff != "" {
					t.Errorf("(-want +got):\n%s", diff)
				}
			})
		}
	}
}

// The program's logger gets what its level takes, and nothing else.
func TestRecordsPassTheLogger(t *testing.T) {
	var out strings.Builder
	drop := func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey {
			return slog.Attr{}
		}
		return a
	}
	h := slog.NewTextHandler(&out, &slog.HandlerOptions{Level: slog.LevelWarn, ReplaceAttr: drop})
	l := newLog().Logger(slog.New(h))
	l.Info("no", "event", event.DiskWorks)
	l.Warn("yes", "event", event.DiskFailed, "err", "full")
	if want := "level=WARN msg=yes event=disk_failed err=full\n"; out.String() != want {
		t.Errorf("it wrote %q, not %q", out.String(), want)
	}
}

// What entries did becomes events with names, the same on every node, but not while a node catches
// up.
func TestNews(t *testing.T) {
	l := newLog()
	news := []state.News{
		{Kind: event.SessionEnded, Index: 5, Node: "b1", Cause: "its lease has expired", Outage: 700 * time.Millisecond, Unplanned: true},
		{Kind: event.RoleMoved, Index: 5, Node: "a1", From: "b1", Role: "jobs", Outage: 700 * time.Millisecond, Cause: "its lease has expired"},
		{Kind: event.RoleMoved, Index: 6, From: "a1", Role: "jobs", Cause: "its holder gave it up"},
		{Kind: event.RoleMoved, Index: 7, Node: "a1", Role: "jobs"},
		{Kind: event.MemberRemoved, Index: 8, Node: "0123456789abcdef", Name: "old"},
		{Kind: event.MemberAdded, Index: 9, Node: "0123456789abcdef"},
	}
	l.News(news)
	l.Leader("b1", false, 3, 0)
	if got := l.After(0); len(got) != 0 {
		t.Fatalf("a node that catches up records %v", got)
	}
	l.Begin()
	l.News(news)
	l.Leader("b1", false, 3, time.Second) // found again
	l.Leader("a1", true, 4, 90*time.Millisecond)
	want := []event.Event{
		{Kind: event.SessionEnded, Subject: "bravo", Text: "the node holds nothing any more", Cause: "it was silent for 700ms", Severity: event.Warn, Key: "5/session_ended/b1"},
		{Kind: event.RoleMoved, Subject: "jobs", Text: "the role has moved from bravo to alpha", From: "bravo", To: "alpha", Outage: 700 * time.Millisecond, Cause: "its lease has expired", Severity: event.Info, Key: "5/role_moved/jobs"},
		{Kind: event.RoleMoved, Subject: "jobs", Text: "nobody holds the role any more", From: "alpha", Cause: "its holder gave it up", Severity: event.Info, Key: "6/role_moved/jobs"},
		{Kind: event.RoleMoved, Subject: "jobs", Text: "alpha holds the role", To: "alpha", Severity: event.Info, Key: "7/role_moved/jobs"},
		{Kind: event.MemberRemoved, Subject: "old", Text: "the node is no member any more", Severity: event.Info, Key: "8/member_removed/0123456789abcdef"},
		{Kind: event.MemberAdded, Subject: "01234567", Text: "the node is a member from now on", Severity: event.Info, Key: "9/member_added/0123456789abcdef"},
		{Kind: event.LeaderElected, Subject: "alpha", Text: "the node leads the cluster", Outage: 90 * time.Millisecond, Severity: event.Info, Key: "term/4"},
	}
	if diff := cmp.Diff(want, l.After(0), cmpopts.IgnoreFields(event.Event{}, "Number", "Time", "Node")); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
