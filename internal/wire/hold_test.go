package wire

import (
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"github.com/flotilla-ha/flotilla/internal/simnet"
	"github.com/flotilla-ha/flotilla/internal/synctest"
	"github.com/flotilla-ha/flotilla/internal/wire/rafttransport"
)

// later runs f in a goroutine, lets time pass, and reports whether it still runs, with a channel
// for its result.
func later(f func() error) (running bool, result chan error) {
	result = make(chan error, 1)
	go func() { result <- f() }()
	time.Sleep(30 * time.Second)
	return len(result) == 0, result
}

func TestHeldWhileDown(t *testing.T) {
	synctest.Parallel(t)
	for _, c := range []struct {
		name string
		end  func(t *testing.T, n *simnet.Network, a *Port, admitted *atomic.Bool, term *atomic.Uint64)
		want error // nil: it succeeds
	}{
		{"a heartbeat succeeds", func(t *testing.T, n *simnet.Network, a *Port, _ *atomic.Bool, _ *atomic.Uint64) {
			ack(open(t, n, 2, nil))
			if err := send(a, 2, entriesBeat()); err != nil {
				t.Fatal(err)
			}
		}, nil},
		{"the peer dials", func(t *testing.T, n *simnet.Network, a *Port, _ *atomic.Bool, _ *atomic.Uint64) {
			b := open(t, n, 2, nil)
			ack(b)
			if _, err := b.Call(t.Context(), nodeID(1), "/", nil); err != nil {
				t.Fatal(err)
			}
		}, nil},
		{"release", func(t *testing.T, _ *simnet.Network, a *Port, _ *atomic.Bool, _ *atomic.Uint64) {
			a.Transport().Release(0) // of an earlier term: nothing happens
			a.Transport().Release(1)
			if err := send(a, 2, entries(1, 1)); !errors.Is(err, rafttransport.ErrReleased) {
				t.Fatal("held after the release of its term", err)
			}
		}, rafttransport.ErrReleased},
		{"stop", func(_ *testing.T, _ *simnet.Network, a *Port, _ *atomic.Bool, _ *atomic.Uint64) { a.Transport().Stop() }, ErrClosed},
		{"close", func(_ *testing.T, _ *simnet.Network, a *Port, _ *atomic.Bool, _ *atomic.Uint64) { a.Close() }, ErrClosed},
		{"removed", func(_ *testing.T, _ *simnet.Network, _ *Port, admitted *atomic.Bool, _ *atomic.Uint64) {
			admitted.Store(false)
			time.Sleep(time.Second)
		}, rafttransport.ErrReleased},
		{"newer term", func(_ *testing.T, _ *simnet.Network, _ *Port, _ *atomic.Bool, term *atomic.Uint64) {
			term.Store(2)
			time.Sleep(time.Second)
		}, rafttransport.ErrReleased},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := simnet.New()
				var admitted atomic.Bool
				var term atomic.Uint64
				admitted.Store(true)
				term.Store(1)
				a := open(t, n, 1, func(c *Config) {
					c.Term = term.Load
					c.Admit = func(string) error {
						if !admitted.Load() {
							return errors.New("no member")
						}
						return nil
					}
				})
				if err := send(a, 2, entriesBeat()); err == nil ||
					!strings.Contains(err.Error(), "connection refused") ||
					!a.Transport().Refused(nodeID(2)) {
					t.Fatal("a heartbeat to nobody", err)
				}
				running, result := later(func() error { return send(a, 2, entries(1, 1)) })
				if !running {
					t.Fatal("not held", <-result)
				}
				c.end(t, n, a, &admitted, &term)
				time.Sleep(100 * time.Millisecond)
				select {
				case err := <-result:
					if c.want == nil && err != nil || c.want != nil && !errors.Is(err, c.want) {
						t.Fatal(err)
					}
					if c.want == nil && a.Transport().Refused(nodeID(2)) {
						t.Fatal("still said to refuse")
					}
				default:
					t.Fatal("still held")
				}
			})
		})
	}
}

// raft asks for a vote only once. It must not be lost with a connection from before a restart.
func TestVoteAfterRestart(t *testing.T) {
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		n := simnet.New()
		a, b := open(t, n, 1, nil), open(t, n, 2, nil)
		vote := func() error {
			req := &raft.RequestVoteRequest{RPCHeader: header(1), Term: 1}
			return a.Transport().RequestVote(raft.ServerID(nodeID(2)), "", req, new(raft.RequestVoteResponse))
		}
		ack(b)
		if err := vote(); err != nil {
			t.Fatal(err)
		}
		b.Close()
		ack(open(t, n, 2, nil))
		if err := vote(); err != nil {
			t.Fatal(err)
		}
	})
}
