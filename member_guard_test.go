package flotilla

import (
	"github.com/flotilla-ha/flotilla/internal/membership"
	"github.com/flotilla-ha/flotilla/internal/replica"
	"github.com/flotilla-ha/flotilla/internal/rpc"
	"github.com/flotilla-ha/flotilla/internal/self"
	"github.com/flotilla-ha/flotilla/internal/state"
	"github.com/flotilla-ha/flotilla/internal/testlog"

	"context"
	"encoding/json"
	"errors"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"github.com/flotilla-ha/flotilla/internal/codec"
	"github.com/flotilla-ha/flotilla/internal/durable"
	"github.com/flotilla-ha/flotilla/internal/seal"
	"github.com/flotilla-ha/flotilla/internal/simnet"
	"github.com/flotilla-ha/flotilla/internal/synctest"
	"github.com/flotilla-ha/flotilla/internal/wire"
)

// The tests in this file are of single guards of the membership. Without its guard each of them fails: see TESTING.md.

// join opens one more node beside those that are there. It does not wait for it.
func join(t *testing.T, net *simnet.Network, beside *Node, name string, configure func(*Config)) *Node {
	t.Helper()
	cfg := beside.cfg
	host := net.Host(name)
	cfg.Dir, cfg.Name, cfg.Expect, cfg.Listen, cfg.Dial = t.TempDir(), name, 0, host.Listen, host.Dial
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
		if _, err := leader.members.ServeLeave(t.Context(), liar.self.ID, honest.members.Greeting().Member); !errors.Is(err, codec.ErrMalformed) {
			t.Errorf("a wish to leave in the name of another is answered %v", err)
		}

		// The other way round: whoever answers is who the certificate says.
		host, id := net.Host("x"), self.NewID()
		ln, err := host.Listen("tcp", ":7373")
		if err != nil {
			t.Fatal(err)
		}
		said := honest.members.Greeting()
		port, err := wire.Open(wire.Config{
			ID: id, Secrets: leader.secrets, Listener: ln, Dial: host.Dial,
			Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { json.NewEncoder(w).Encode(said) }),
		})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { port.Close() })
		leader.members.Peers = Static("x:7373")
		if r := leader.members.Greet(t.Context()); r.Err != nil || len(r.Greeted) != 2 || r.Greeted[honest.self.ID].Name != honest.self.Name {
			t.Errorf("a liar is believed: %+v", r)
		}
		said.ID = id
		if r := leader.members.Greet(t.Context()); r.Err != nil || len(r.Greeted) != 3 {
			t.Errorf("one who tells the truth is not believed: %+v", r)
		}
	})
}

// A node that takes no part any more tells nobody that he was removed, or that his directory is another's.
func TestFailedNodePassesNoVerdict(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		leader, others := leaderOf(t, trio(t, simnet.New(), nil))
		n := others[0]
		removed := n.members.Greeting()
		removed.Member, removed.Boot = state.Member{ID: self.NewID(), Addr: "x:7373"}, self.NewIncarnation(1)
		if out, err := leader.members.ServeHello(t.Context(), removed.ID, removed); err != nil || !strings.Contains(refusedWhy(out), "the cluster has removed it") {
			t.Fatalf("one who is no member any more is answered %q, %v", refusedWhy(out), err)
		}
		n.replica.Fail(errors.New("its disk is broken"))
		if _, err := n.members.ServeHello(t.Context(), removed.ID, removed); err == nil || !strings.Contains(err.Error(), "takes no part") {
			t.Errorf("a node that has failed answers %v", err)
		}
	})
}

// A leader that is cut off, and may be none any more, tells nobody that he was removed: it may not know the newest members.
func TestOldLeaderPassesNoVerdict(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := simnet.New()
		leader, others := leaderOf(t, trio(t, net, nil))
		stranger := others[0].members.Greeting()
		stranger.Member, stranger.Boot = state.Member{ID: self.NewID(), Addr: "x:7373"}, self.NewIncarnation(1)
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

// What a node is, is read from its directory or not at all.
func TestIdentitiesThatAreRefused(t *testing.T) {
	secret := NewSecret()
	valid := membership.Identity{Version: membership.IdentityVersion, ID: self.NewID(), Key: secret.raw.ID().String(), Member: true}
	write := func(change func(*membership.Identity)) []byte {
		id := valid
		change(&id)
		b, err := json.Marshal(id)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	for _, test := range []struct {
		name, field, want string
		content           []byte
	}{
		{"as it is", "", "", write(func(*membership.Identity) {})},
		{"of a later version", "Dir", "was written by a later version", write(func(id *membership.Identity) { id.Version++ })},
		{"of an earlier version", "Dir", "was written by an earlier version", write(func(id *membership.Identity) { id.Version-- })},
		{"of another secret", "Secrets", "is sealed with the secret", write(func(id *membership.Identity) { id.Key = NewSecret().raw.ID().String() })},
		{"no JSON", "Dir", "the node's identity cannot be read", []byte("x")},
	} {
		t.Run(test.name, func(t *testing.T) {
			dir, err := durable.Lock(filepath.Join(t.TempDir(), "node"))
			if err != nil {
				t.Fatal(err)
			}
			defer dir.Close()
			if err := dir.WriteFile(durable.IdentityFile, test.content); err != nil {
				t.Fatal(err)
			}
			id, _, err := membership.LoadIdentity(dir, []seal.Secret{secret.raw})
			var wrong *ConfigError
			switch {
			case test.want == "" && (err != nil || id.ID != valid.ID):
				t.Errorf("%+v, %v", id, err)
			case test.want != "" && (!errors.As(err, &wrong) || wrong.Field != test.field || !strings.Contains(wrong.Reason, test.want)):
				t.Errorf("the error is %v, want one about %s with %q", err, test.field, test.want)
			}
		})
	}
}

// A log without a file that says whose it is stays as it is: a new node over it would vote with another's log.
func TestLogWithoutIdentity(t *testing.T) {
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

// A member that has gone before it could vote does not vote: it would count for the majority and give no answer.
func TestAbsentNodeDoesNotVote(t *testing.T) {
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

// An index is current when a majority of the voters says, after the question, that there is no later term.
func TestConfirm(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := simnet.New()
		leader, _ := leaderOf(t, trio(t, net, nil))
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

// A node promises itself to one proposal, of a group that it is in, and stays with it for as long as that stands.
func TestPromisesThatAreRefused(t *testing.T) {
	in := membership.Proposed{Cluster: "new", Proposer: "a", Group: []string{"a", "own"}, Number: 2}
	of := func(cluster, proposer string, number uint64, s membership.Step) *membership.Stand {
		return &membership.Stand{Proposed: membership.Proposed{Cluster: cluster, Proposer: proposer, Group: in.Group, Number: number}, Step: s}
	}
	for _, test := range []struct {
		name      string
		id        membership.Identity
		withdrawn *membership.Stand
		want      string // empty: it promises
	}{
		{"a new node", membership.Identity{}, nil, ""},
		{"one that has promised itself to it", membership.Identity{Formation: of("new", "a", 2, membership.Promised)}, nil, ""},
		{"one that has promised itself to the proposer's earlier one", membership.Identity{Formation: of("old", "a", 1, membership.Promised)}, nil, ""},
		{"one that has promised itself to one that was withdrawn", membership.Identity{Formation: of("old", "b", 1, membership.Promised)}, of("old", "b", 1, membership.Promised), ""},
		{"a member", membership.Identity{Cluster: "other"}, nil, "belongs to a cluster already"},
		{"one that has voided it", membership.Identity{Formation: of("new", "a", 2, membership.Voided)}, nil, "takes no part in that cluster"},
		{"one that has voided it and left it", membership.Identity{Void: []string{"new"}}, nil, "takes no part in that cluster"},
		{"one that proposes itself", membership.Identity{Formation: of("old", "own", 1, membership.Proposes)}, nil, "proposes a cluster itself"},
		{"one that has promised itself to the proposer's later one", membership.Identity{Formation: of("later", "a", 3, membership.Promised)}, nil, "has promised itself to another"},
		{"one that has promised itself to another's", membership.Identity{Formation: of("old", "b", 1, membership.Promised)}, nil, "has promised itself to another"},
		{"one that has promised itself to another's since", membership.Identity{Formation: of("old", "b", 1, membership.Promised)}, of("older", "c", 1, membership.Promised), "has promised itself to another"},
	} {
		if err := test.id.Refuses(&in, test.withdrawn); test.want == "" && err != nil || test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)) {
			t.Errorf("%s: %v, want %q", test.name, err, test.want)
		}
	}

	synctest.Test(t, func(t *testing.T) {
		n := lonely(t)
		for _, test := range []struct {
			name, peer string
			group      []string
			want       error
		}{
			{"not the proposer", "b", []string{"a", "b", n.self.ID}, codec.ErrMalformed},
			{"another group", "a", []string{"a", "b"}, codec.ErrMalformed},
			{"the proposer", "a", []string{"a", n.self.ID}, nil},
		} {
			_, err := n.members.ServePromise(t.Context(), test.peer, membership.Proposed{Cluster: "new", Proposer: "a", Group: test.group, Number: 1})
			if !errors.Is(err, test.want) || (n.members.Ident.Identity().Formation != nil) != (test.want == nil) {
				t.Errorf("asked by %s: %v, want %v; it stands by %+v", test.name, err, test.want, n.members.Ident.Identity().Formation)
			}
		}
	})
}

// lonely returns a node that waits for two others.
func lonely(t *testing.T) *Node {
	t.Helper()
	host := simnet.New().Host("x")
	n, err := Open(t.Context(), Config{
		Dir: t.TempDir(), Name: "x", Secrets: []Secret{NewSecret()}, Peers: Static("y:7373", "z:7373"), Expect: 3,
		Listen: host.Listen, Dial: host.Dial, Logger: testlog.None(),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { n.Close() })
	return n
}

// A node voids a proposal for who is in its group, unless it has accepted it or hears its proposer.
func TestVoidings(t *testing.T) {
	for _, test := range []struct {
		name   string
		step   membership.Step // empty: it stands by none
		silent bool            // the proposer, for long
		peer   string
		voided bool
		want   error
	}{
		{"none that it knows", "", false, "b", true, nil},
		{"promised, and the proposer is silent", membership.Promised, true, "b", true, nil},
		{"promised, and the proposer is heard", membership.Promised, false, "b", false, nil},
		{"accepted", membership.Accepted, true, "b", false, nil},
		{"voided before", membership.Voided, false, "b", true, nil},
		{"asked by a stranger", membership.Promised, true, "c", false, codec.ErrMalformed},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := lonely(t)
				p := membership.Proposed{Cluster: "new", Proposer: "a", Group: []string{"a", "b", n.self.ID}, Number: 1}
				n.members.Forming.Heard()
				if test.silent {
					n.members.Forming.Proposer.Store(new(time.Now().Add(-membership.VoidTime)))
				}
				if err := n.members.Ident.Save(func(id *membership.Identity) {
					if id.Formation = nil; test.step != "" {
						id.Formation = &membership.Stand{Proposed: p, Step: test.step}
					}
				}); err != nil {
					t.Fatal(err)
				}
				out, err := n.members.ServeVoid(t.Context(), test.peer, p)
				if !errors.Is(err, test.want) || out.Voided != test.voided {
					t.Errorf("voided: %v, %v; want %v, %v", out.Voided, err, test.voided, test.want)
				}
			})
		})
	}
}

// refusedWhy is what a peer says to one that it refuses.
func refusedWhy(g membership.Greeting) string {
	if g.Refused == nil {
		return ""
	}
	return g.Refused.Why
}

// A proposal goes on when others have said what it needs, and is left when that is known.
func TestProposalsWaitForOthers(t *testing.T) {
	for _, test := range []struct {
		name     string
		step     membership.Step
		greeted  map[string]membership.Greeting // made with the proposal
		cluster  string                         // that this node stood by when it asked; empty: the proposed one
		want     string
		standing bool // by the proposal, in the end
	}{
		{"one of three has accepted", membership.Accepted, nil, "", "1 of 3 nodes have accepted", true},
		{"nobody has promised", membership.Proposes, nil, "", "waiting for the promise of", true},
		{"the proposer has not accepted", membership.Promised, map[string]membership.Greeting{"a": {Formation: &membership.Stand{Step: membership.Proposes}}}, "", "which forms the cluster", true},
		{"the proposer had not proposed it yet when it answered", membership.Promised, map[string]membership.Greeting{"a": {}}, "another", "which forms the cluster", true},
		{"the proposer has withdrawn it", membership.Promised, map[string]membership.Greeting{"a": {}}, "", "has withdrawn the cluster", false},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := lonely(t)
				synctest.Wait() // it looks for others now
				s := membership.Stand{Proposed: membership.Proposed{Cluster: "new", Proposer: "a", Group: []string{"a", "b", n.self.ID}, Number: 1}, Step: test.step}
				if test.step == membership.Proposes {
					s.Proposer, n.members.Forming.Since = n.self.ID, time.Now()
				}
				if err := n.members.Ident.Save(func(id *membership.Identity) { id.Formation = &s }); err != nil {
					t.Fatal(err)
				}
				r := membership.Round{Cluster: test.cluster, Greeted: make(map[string]membership.Greeting)}
				if r.Cluster == "" {
					r.Cluster = s.Cluster
				}
				for id, g := range test.greeted {
					if g.ID = id; g.Formation != nil {
						g.Formation = &membership.Stand{Proposed: s.Proposed, Step: g.Formation.Step}
					}
					r.Greeted[id] = g
				}
				done, err := n.members.Pursue(t.Context(), &r, s)
				if done || err == nil || !strings.Contains(err.Error(), test.want) {
					t.Errorf("done %v, %v; want %q", done, err, test.want)
				}
				if got := n.members.Ident.Identity(); got.Cluster != "" || (got.Formation != nil) != test.standing {
					t.Errorf("it belongs to %q and stands by %+v", got.Cluster, got.Formation)
				}
			})
		})
	}
}

// A node that wants to join is told that it has when that is committed. Until then nobody knows.
func TestJoiningIsCommittedFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := simnet.New()
		leader, others := leaderOf(t, trio(t, net, nil))
		x := others[0].members.Greeting()
		x.Member, x.Boot = state.Member{ID: self.NewID(), Addr: "x:7373"}, self.NewIncarnation(1)
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
	synctest.Test(t, func(t *testing.T) {
		leader, others := leaderOf(t, trio(t, simnet.New(), nil))
		n := others[0]
		request := openRequest(n.self.Incarnation, leader.store.State().Number(n.self.ID))
		stop, err := leader.replica.Leading.Load().Expel(t.Context(), n.self.ID)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := leader.members.ServeOpen(t.Context(), n.self.ID, request); err == nil || !strings.Contains(err.Error(), "it is being removed") {
			t.Errorf("a member that is being removed is told %v", err)
		}
		stop()
		if _, err := leader.members.ServeOpen(t.Context(), n.self.ID, request); err != nil {
			t.Errorf("a member is told %v", err)
		}
	})
}

// Who is there is neither removed nor demoted, and the dead stay if the configuration says so.
func TestRosterSparesTheLiving(t *testing.T) {
	living := []membership.Member{{ID: "a", Votes: true, Leads: true}, {ID: "b", Votes: true}, {ID: "c", Votes: true}}
	dead, steady := membership.Member{ID: "d", Absent: true}, membership.Member{ID: "d", Current: true}
	for _, test := range []struct {
		name       string
		removeDead time.Duration
		fourth     membership.Member
		want       membership.ChangeKind // 0: none
	}{
		{"a dead one, never", 0, dead, 0},
		{"a dead one, never by another word", -1, dead, 0},
		{"a dead one, after an hour", time.Hour, dead, membership.Remove},
		{"a steady one", time.Hour, steady, membership.Promote},
	} {
		r, start := membership.NewRoster(test.removeDead), time.Now()
		all := append(living[:len(living):len(living)], test.fourth)
		r.Next(start, all)
		if c, ok := r.Next(start.Add(1000*time.Hour), all); c.Kind != test.want || ok != (test.want != 0) || ok && c.ID != "d" {
			t.Errorf("%s: %+v, want %d of d", test.name, c, test.want)
		}
	}
}

// A node hears late that the process which led before is dead. The leader's next process was elected
// by then, and stays the leader.
func TestNewProcessLeads(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		nodes := trio(t, simnet.New(), nil)
		leader, others := leaderOf(t, nodes)
		time.Sleep(5 * time.Second)
		n, term := others[0], leader.replica.Term()
		before := self.NewIncarnation(0)
		now, _ := n.store.State().Process(leader.self.ID)
		n.book.Mu.Lock()
		heard := n.book.Heard[leader.self.ID]
		heard.Boot, heard.Opened = before, now.Opened
		n.book.Heard[leader.self.ID] = heard
		n.book.Mu.Unlock()
		in := membership.Greeting{
			Member: heard.Member, Boot: leader.self.Incarnation, Processes: []string{before, leader.self.Incarnation},
			Last: leader.replica.LastIndex(), Applied: leader.replica.Applied(),
		}
		if no := n.members.Meet(t.Context(), &in); no != nil {
			t.Fatalf("the leader is refused: %s", no.Why)
		}
		if !n.book.HasEnded(before) {
			t.Error("the process before is not known to be dead: this shows nothing")
		}
		time.Sleep(2 * time.Second)
		if now := leader.replica.Term(); now != term || n.replica.Leader() != leader.self.ID {
			t.Errorf("it led in term %d, and now %q leads in term %d", term, n.replica.Leader(), now)
		}
	})
}
