package wire

import (
	"errors"
	"strings"
	"testing"

	"github.com/hashicorp/raft"

	"github.com/flotilla-ha/flotilla/internal/history"
	"github.com/flotilla-ha/flotilla/internal/simnet"
	"github.com/flotilla-ha/flotilla/internal/synctest"
)

// A request reaches raft only if the node has nothing against the log, the candidate and the
// process.
func TestNodeRefusesForRaft(t *testing.T) {
	synctest.Parallel(t)
	no := errors.New("not so")
	for _, test := range []struct {
		name      string
		configure func(*Config)
		want      [3]bool // whether a heartbeat, entries and a request for a vote reach raft
	}{
		{"nothing", func(*Config) {}, [3]bool{true, true, true}},
		{"a log that differs", func(c *Config) {
			c.Compare = func(string, uint64, history.Claim) error { return no }
		}, [3]bool{true, false, true}},
		{"a log that is too short", func(c *Config) {
			c.MayLead = func(uint64) error { return no }
		}, [3]bool{true, true, false}},
		{"an older process", func(c *Config) {
			c.Fresh = func(id, process string) error {
				if id == nodeID(1) && process == "older" {
					return no
				}
				return nil
			}
		}, [3]bool{}},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := simnet.New()
				a := open(t, n, 1, func(c *Config) { c.Incarnation = "older" })
				b := open(t, n, 2, test.configure)
				taken := ack(b)
				id := raft.ServerID(nodeID(2))
				for i, err := range []error{
					send(a, 2, entriesBeat()),
					send(a, 2, entries(2, 3)),
					a.Transport().RequestVote(id, "", &raft.RequestVoteRequest{RPCHeader: header(1), Term: 1, LastLogIndex: 3}, new(raft.RequestVoteResponse)),
				} {
					if test.want[i] != (err == nil) || err != nil && !strings.Contains(err.Error(), no.Error()) {
						t.Errorf("request %d: %v; want it to reach raft: %v", i, err, test.want[i])
					}
				}
				want := int32(0)
				for _, is := range test.want {
					if is {
						want++
					}
				}
				if taken.Load() != want {
					t.Errorf("raft has got %d requests, want %d", taken.Load(), want)
				}
			})
		})
	}
}

// A follower gets the checksum of the leader's log at the entry that a request names, and whether
// it is known.
func TestSumsAreTold(t *testing.T) {
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		n := simnet.New()
		a := open(t, n, 1, func(c *Config) {
			c.Sum = func(index, term uint64) (uint64, bool) { return 100*index + term, index < 5 }
		})
		var got []history.Claim
		b := open(t, n, 2, func(c *Config) {
			c.Compare = func(_ string, _ uint64, claim history.Claim) error { got = append(got, claim); return nil }
		})
		ack(b)
		for _, from := range []uint64{3, 9} {
			if err := send(a, 2, entries(from, from+1)); err != nil {
				t.Fatal(err)
			}
		}
		if len(got) != 2 || got[0].Index != 2 || got[0].Sum != 201 || !got[0].Known || len(got[0].Entries) != 2 {
			t.Fatalf("got %+v", got)
		}
		if got[1].Known {
			t.Errorf("a sum that the leader does not know is taken for known: %+v", got[1])
		}
	})
}
