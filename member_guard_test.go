package flotilla

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"github.com/flotilla-ha/flotilla/internal/codec"
	"github.com/flotilla-ha/flotilla/internal/durable"
	"github.com/flotilla-ha/flotilla/internal/membership"
	"github.com/flotilla-ha/flotilla/internal/peers"
	"github.com/flotilla-ha/flotilla/internal/replica"
	"github.com/flotilla-ha/flotilla/internal/rpc"
	"github.com/flotilla-ha/flotilla/internal/self"
	"github.com/flotilla-ha/flotilla/internal/simnet"
	"github.com/flotilla-ha/flotilla/internal/state"
	"github.com/flotilla-ha/flotilla/internal/synctest"
	"github.com/flotilla-ha/flotilla/internal/wire"
)

// The tests in this file are of single guards of the membership. Without its guard each of them
// fails: see TESTING.md.

// join opens one more node beside those that are there. It does not wait for it.
func join(t *testing.T, net *simnet.Network, beside *Node, name string, configure func(*Config)) *Node {
	t.Helper()
	cfg := beside.cfg
	host := net.Host(name)
	cfg.Dir, cfg.Name, cfg.Expect, cfg.PeerListen, cfg.PeerDial = t.TempDir(), name, 0, host.Listen, host.Dial
	if configure != nil {
		configure(&cfg)
	}
	n, err := Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { n.Close() })
	return n
}

// A node whose peers belong to two clusters joins neither, and says so.
func TestPeersOfTwoClusters(t *testing.T) {
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		net := simnet.New()
		one := fleet(t, net, []string{"a"}, nil)[0]
		two := fleet(t, net, []string{"b"}, func(c *Config) { c.Secrets = one.cfg.Secrets })[0]
		between := join(t, net, one, "c", func(c *Config) { c.Peers = Static("a:7373", "b:7373") })
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		defer cancel()
		if err := between.Ready(ctx); err == nil || !strings.Contains(err.Error(), "belong to two clusters") {
			t.Errorf("a node between two clusters says %v", err)
		}
		if a, b := len(one.replica.Servers()), len(two.replica.Servers()); a+b != 2 {
			t.Errorf("two clusters of one node have %d and %d", a, b)
		}
		other := join(t, net, one, "d", func(c *Config) { c.Peers = Static("a:7373") })
		mustBeReady(t, other) // one whose peers belong to one cluster joins
	})
}

// Nobody speaks for another node.
func TestGreetingsOfLiars(t *testing.T) {
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		net := simnet.New()
		nodes := trio(t, net, nil)
		leader, others := leaderOf(t, nodes)
		honest, liar := others[0], others[1]
		joins := honest.members.Greeting()
		for name, call := range map[string]func(peer string) error{
			"a greeting": func(peer string) error {
				_, err := leader.members.ServeHello(t.Context(), peer, honest.members.Greeting())
				return err
			},
			"a wish to join": func(peer string) error {
				_, err := leader.members.ServeJoin(t.Context(), peer, joins)
				return err
			},
		} {
			if err := call(liar.self.ID); !errors.Is(err, codec.ErrMalformed) {
				t.Errorf("%s in the name of another is answered %v", name, err)
			}
			if err := call(honest.self.ID); err != nil {
				t.Errorf("%s in its own name is answered %v", name, err)
			}
		}
		if _, err := leader.members.ServeLeave(t.Context(), liar.self.ID, membership.Leaving{ID: honest.self.ID}); !errors.Is(err, codec.ErrMalformed) {
			t.Errorf("a wish to leave in the name of another is answered %v", err)
		}

		// The other way round: the node that answers is the one that its certificate names.
		host, id := net.Host("x"), self.NewID()
		ln, err := host.Listen("tcp", ":7373")
		if err != nil {
			t.Fatal(err)
		}
		said := honest.members.Greeting()
		port, err := wire.Open(wire.Config{
			ID: id, Secrets: leader.cfg.rawSecrets(), Listener: ln, Dial: host.Dial,
			Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { w.Write(said.Encode()) }),
		})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { port.Close() })
		leader.peers.Learn(state.Member{ID: id, Addr: "x:7373"})
		if r := leader.members.Greet(t.Context()); r.Err != nil || len(r.Greeted) != 2 || r.Greeted[honest.self.ID].Name != honest.self.Name {
			t.Errorf("a liar is believed: %+v", r)
		}
		said.ID = id
		if r := leader.members.Greet(t.Context()); r.Err != nil || len(r.Greeted) != 3 {
			t.Errorf("one who tells the truth is not believed: %+v", r)
		}
	})
}

// A node that takes no part any more tells nobody that he was removed, or that his directory is
// another's.
func TestFailedNodeRefusesNobody(t *testing.T) {
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		leader, others := leaderOf(t, trio(t, simnet.New(), nil))
		n := others[0]
		removed := n.members.Greeting()
		removed.Member, removed.Incarnation = state.Member{ID: self.NewID(), Addr: "x:7373"}, self.NewIncarnation(1)
		if out, err := leader.members.ServeHello(t.Context(), removed.ID, removed); err != nil || !strings.Contains(refusedWhy(out), "the cluster has removed it") {
			t.Fatalf("one who is no member any more is answered %q, %v", refusedWhy(out), err)
		}
		n.replica.Fail(errors.New("its disk is broken"))
		if _, err := n.members.ServeHello(t.Context(), removed.ID, removed); err == nil || !strings.Contains(err.Error(), "takes no part") {
			t.Errorf("a node that has failed answers %v", err)
		}
	})
}

// A node that speaks a later version of the greeting is answered as any other one. The log says
// once that this node is the older one.
func TestNewerGreetingIsAnswered(t *testing.T) {
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		books := make(map[string]*logbook)
		leader, others := leaderOf(t, trio(t, simnet.New(), func(c *Config) {
			books[c.Name] = newLogbook()
			c.Logger = books[c.Name].logger()
		}))
		newer := others[0].members.Greeting()
		newer.Protocol++
		for range 2 {
			out, err := leader.members.ServeHello(t.Context(), newer.ID, newer)
			if err != nil || out.Refused != nil || out.ID != leader.self.ID || out.Protocol != membership.Protocol {
				t.Errorf("it is answered %+v, %v", out, err)
			}
		}
		said := books[leader.self.Name].with("level=WARN", "a node is newer than this one", "upgrade this node")
		if len(said) != 1 {
			t.Errorf("the log says %q", said)
		}
	})
}

// A leader that is cut off, and may be none any more, tells nobody that he was removed: it may not
// know the newest members.
func TestOldLeaderRefusesNobody(t *testing.T) {
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		net := simnet.New()
		leader, others := leaderOf(t, trio(t, net, nil))
		stranger := others[0].members.Greeting()
		stranger.Member, stranger.Incarnation = state.Member{ID: self.NewID(), Addr: "x:7373"}, self.NewIncarnation(1)
		hello := func() string {
			t.Helper()
			out, err := leader.members.ServeHello(t.Context(), stranger.ID, stranger)
			if err != nil {
				t.Fatal(err)
			}
			return refusedWhy(out)
		}
		if said := hello(); !strings.Contains(said, "the cluster has removed it") {
			t.Fatalf("the leader tells one who is no member any more %q", said)
		}
		net.Isolate(leader.self.Name)
		if leader.replica.Leading.Load() == nil {
			t.Fatal("it knows already; the test shows nothing")
		}
		if said := hello(); said != "" {
			t.Errorf("a leader that is cut off tells a node that it does not know %q", said)
		}
	})
}

// A log without a file that says whose it is stays as it is: a new node over it would vote with
// another's log.
func TestLogWithoutIdentity(t *testing.T) {
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		n := fleet(t, simnet.New(), []string{"a"}, nil)[0]
		if err := n.Close(); err != nil {
			t.Fatal(err)
		}
		dir, err := durable.Lock(n.cfg.Dir)
		if err != nil {
			t.Fatal(err)
		}
		if err := dir.RemoveFile(durable.IdentityFile); err != nil {
			t.Fatal(err)
		}
		dir.Close()
		_, err = Open(t.Context(), n.cfg)
		var wrong *ConfigError
		if !errors.As(err, &wrong) || wrong.Field != "Dir" || !strings.Contains(wrong.Reason, "has a raft log but no file") {
			t.Errorf("it is opened: %v", err)
		}
	})
}

// More than five members serve, and five of them vote.
func TestAtMostFiveVote(t *testing.T) {
	SkipShort(t)
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		net := simnet.New()
		nodes := fleet(t, net, []string{"a", "b", "c", "d"}, nil)
		for i, name := range []string{"e", "f"} {
			mustBeReady(t, join(t, net, nodes[0], name, nil))
			time.Sleep(time.Minute)
			if s := nodes[0].store.State(); len(s.Servers) != 5+i || len(s.Voters) != 5 {
				t.Errorf("of %d members %d vote", len(s.Servers), len(s.Voters))
			}
		}
	})
}

// A member that has gone before it could vote does not vote: it would count for the majority and
// give no answer.
func TestAbsentNodeDoesNotVote(t *testing.T) {
	SkipShort(t)
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		net := simnet.New()
		nodes := trio(t, net, nil)
		d := join(t, net, nodes[0], "d", nil)
		mustBeReady(t, d)
		time.Sleep(membership.SteadyTime / 2)
		net.Isolate("d")
		for range 60 {
			time.Sleep(time.Second)
			if voters := voting(t, nodes); voters != 3 {
				t.Fatalf("%d vote while the fourth is not there", voters)
			}
		}
		net.Heal()
		time.Sleep(time.Minute)
		if voters := voting(t, nodes); voters != 4 {
			t.Errorf("%d vote when the fourth is back", voters)
		}
	})
}

// voting returns how many vote in the leader's newest configuration, committed or not.
func voting(t *testing.T, nodes []*Node) (voters int) {
	t.Helper()
	leader, _ := leaderOf(t, nodes)
	for _, srv := range leader.replica.Servers() {
		if srv.Suffrage == raft.Voter {
			voters++
		}
	}
	return voters
}

// An index is current when a majority of the voters says, after the question, that there is no
// later term.
func TestConfirm(t *testing.T) {
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		net := simnet.New()
		leader, _ := leaderOf(t, trio(t, net, nil))
		time.Sleep(10 * time.Second) // until nothing is written any more
		if index, err := leader.replica.Confirm(t.Context()); err != nil || index != leader.store.State().Index {
			t.Fatalf("the leader confirms index %d of %d: %v", index, leader.store.State().Index, err)
		}
		l := leader.replica.Leading.Load()
		before := &replica.Leadership{Ctx: l.Ctx, Raft: l.Raft, Term: l.Term - 1}
		leader.replica.Leading.Store(before)
		if _, err := leader.replica.Confirm(t.Context()); !errors.Is(err, rpc.ErrNotLeader) {
			t.Errorf("one that led in an earlier term confirms an index: %v", err)
		}
		leader.replica.Leading.Store(l)
		net.Isolate(leader.self.Name)
		if _, err := leader.replica.Confirm(t.Context()); !errors.Is(err, ErrNoLeader) {
			t.Errorf("one that is cut off confirms an index: %v", err)
		}
	})
}

// refusedWhy is what a peer says to one that it refuses.
func refusedWhy(g membership.Greeting) string {
	if g.Refused == nil {
		return ""
	}
	return g.Refused.Why
}

// A node that wants to join is told that it has when that is committed. Until then nobody knows.
func TestJoiningIsCommittedFirst(t *testing.T) {
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		net := simnet.New()
		leader, others := leaderOf(t, trio(t, net, nil))
		x := others[0].members.Greeting()
		x.Member, x.Incarnation = state.Member{ID: self.NewID(), Addr: "x:7373"}, self.NewIncarnation(1)
		net.Isolate(leader.self.Name)
		for _, want := range []string{context.DeadlineExceeded.Error(), "it is being let in"} {
			ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
			if _, err := leader.members.ServeJoin(ctx, x.ID, x); err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("a leader that is cut off lets a node in: %v, want %q", err, want)
			}
			cancel()
		}
	})
}

// A member that is being removed opens no session meanwhile.
func TestNoSessionWhileRemoved(t *testing.T) {
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		leader, others := leaderOf(t, trio(t, simnet.New(), nil))
		n := others[0]
		request := openRequest(n.self.Incarnation, leader.store.State().Number(n.self.ID))
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		stop, err := leader.replica.Leading.Load().Expel(ctx, n.self.ID)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := leader.members.ServeOpen(ctx, n.self.ID, request); err == nil || !strings.Contains(err.Error(), "it is being removed") {
			t.Errorf("a member that is being removed is told %v", err)
		}
		stop()
		if _, err := leader.members.ServeOpen(ctx, n.self.ID, request); err != nil {
			t.Errorf("a member is told %v", err)
		}
	})
}

// A node hears late that the process which led before is dead. The leader's next process was
// elected by then, and stays the leader.
func TestNewProcessLeads(t *testing.T) {
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		nodes := trio(t, simnet.New(), nil)
		leader, others := leaderOf(t, nodes)
		time.Sleep(5 * time.Second)
		n, term := others[0], leader.replica.Term()
		before := self.NewIncarnation(0)
		n.peers.Observe(leader.members.AsMember(), peers.Process{Incarnation: before})
		in := leader.members.Greeting()
		in.Processes = []string{before, leader.self.Incarnation}
		if no := n.members.Meet(t.Context(), &in); no != nil {
			t.Fatalf("the leader is refused: %s", no.Why)
		}
		if !n.peers.HasEnded(before) {
			t.Error("the process before is not known to be dead: this shows nothing")
		}
		time.Sleep(2 * time.Second)
		if now := leader.replica.Term(); now != term || n.replica.Leader() != leader.self.ID {
			t.Errorf("it led in term %d, and now %q leads in term %d", term, n.replica.Leader(), now)
		}
	})
}
