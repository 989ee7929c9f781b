package turns

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/flotilla-ha/flotilla/internal/codec"
	"github.com/flotilla-ha/flotilla/internal/synctest"
)

const limit = time.Second

// Turns come in the order in which nodes have asked, one at a time for each name.
func TestTable(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var table table
		var mu sync.Mutex
		var order []string
		note := func(what string) {
			mu.Lock()
			defer mu.Unlock()
			order = append(order, what)
		}
		enter := func(name, node string, number uint64) {
			if err := table.enter(t.Context(), name, node, number, limit); err != nil {
				note(fmt.Sprint(node, number, ": ", err))
				return
			}
			note(fmt.Sprint(name, node, number))
		}
		for _, ask := range []struct {
			name, node string
			number     uint64
		}{{"x", "a", 1}, {"x", "b", 1}, {"x", "a", 2}, {"y", "b", 2}, {"x", "c", 1}} {
			go enter(ask.name, ask.node, ask.number)
			synctest.Wait()
		}
		expect := func(when string, want ...string) {
			t.Helper()
			synctest.Wait()
			mu.Lock()
			defer mu.Unlock()
			if diff := cmp.Diff(want, order); diff != "" {
				t.Errorf("%s (-want +got):\n%s", when, diff)
			}
			order = nil
		}
		expect("at first", "xa1", "yb2")
		table.leave("x", "a", 9, limit) // has no place
		expect("nobody is done")
		table.leave("x", "a", 1, limit)
		expect("the first is done", "xb1")
		time.Sleep(limit)
		expect("the second does not say that it is done", "xa2")
		table.leave("x", "a", 2, limit)
		expect("the third is done", "xc1")
		time.Sleep(limit)
		synctest.Wait()
		if len(table.queues) != 0 {
			t.Errorf("%d queues are left", len(table.queues))
		}
	})
}

// A node that waits no longer leaves the queue.
func TestTableGivesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var table table
		if err := table.enter(t.Context(), "x", "a", 1, limit); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := table.enter(ctx, "x", "b", 1, limit); !errors.Is(err, context.Canceled) {
			t.Errorf("the error is %v, want context.Canceled", err)
		}
		if q := table.queues["x"]; len(q) != 1 || q[0].node != "a" {
			t.Errorf("%d are in the queue", len(q))
		}
		table.leave("x", "a", 1, limit)
	})
}

func FuzzRequest(f *testing.F) {
	f.Add(Request{Name: "b\x00k", Number: 7, Done: true}.Encode())
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := DecodeRequest(b)
		if err != nil {
			if !errors.Is(err, codec.ErrMalformed) {
				t.Errorf("the error is %v", err)
			}
			return
		}
		if again, err := DecodeRequest(m.Encode()); err != nil || again != m {
			t.Errorf("%+v is read back as %+v: %v", m, again, err)
		}
	})
}

func FuzzReply(f *testing.F) {
	f.Add(Reply{7}.Encode())
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := DecodeReply(b)
		if err != nil {
			if !errors.Is(err, codec.ErrMalformed) {
				t.Errorf("the error is %v", err)
			}
			return
		}
		if again, err := DecodeReply(m.Encode()); err != nil || again != m {
			t.Errorf("%+v is read back as %+v: %v", m, again, err)
		}
	})
}
