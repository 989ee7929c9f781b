package membership

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/flotilla-ha/flotilla/internal/applied"
	"github.com/flotilla-ha/flotilla/internal/codec"
	"github.com/flotilla-ha/flotilla/internal/peers"
	"github.com/flotilla-ha/flotilla/internal/self"
	"github.com/flotilla-ha/flotilla/internal/state"
	"github.com/flotilla-ha/flotilla/internal/synctest"
	"github.com/flotilla-ha/flotilla/internal/testlog"
	"github.com/flotilla-ha/flotilla/internal/wire"
)

// others are the other nodes of a formation, in a test.
type others struct {
	f        *formation
	greeted  map[string]Greeting
	promises map[string]error // answers of nodes that are asked for a promise; others are unreachable
	voids    []string         // nodes that void what they are asked to
}

var errUnreachable = errors.New("connection refused")

func (o *others) Greeting() Greeting {
	id := o.f.ident.Identity()
	return Greeting{
		Member:   state.Member{ID: "own", Name: "n", Addr: "n:7373"},
		Standing: Standing{Cluster: id.Cluster, Formation: id.Formation, Void: id.Void},
	}
}

func (o *others) Greet(context.Context) Round { return o.round() }

func (o *others) round() Round {
	r := Round{Greeted: o.greeted, at: make(map[string]string)}
	if f := o.f.ident.Identity().Formation; f != nil {
		r.stoodBy = f.Cluster
	}
	return r
}

func (o *others) hello(_ context.Context, id string) (Greeting, error) {
	g, ok := o.greeted[id]
	if !ok {
		return g, errUnreachable
	}
	return g, nil
}

func (o *others) promise(_ context.Context, id string, _ Proposal) error {
	err, ok := o.promises[id]
	if !ok {
		return errUnreachable
	}
	return err
}

func (o *others) void(_ context.Context, id string, _ Proposal) bool {
	return slices.Contains(o.voids, id)
}

// newTestFormation returns the formation of the node "own", which waits for two others.
func newTestFormation(t *testing.T, stand *Stand) (*formation, *others) {
	t.Helper()
	o := &others{greeted: make(map[string]Greeting)}
	ident := NewIdentityFile(nil, &Identity{ID: "own", Pledges: Pledges{Formation: stand}})
	o.f = newFormation(3, testlog.None(), &self.Self{ID: "own"}, ident, peers.NewTable(applied.New()), o)
	return o.f, o
}

// stands returns another node that stands by a proposal.
func stands(id string, s *Stand) Greeting {
	return Greeting{Member: state.Member{ID: id, Name: id, Addr: id + ":7373"}, Standing: Standing{Formation: s}}
}

// A node promises itself to one proposal, and stays with it for as long as that stands.
func TestPromisesThatAreRefused(t *testing.T) {
	in := Proposal{Cluster: "new", Proposer: "a", Group: []string{"a", "own"}, Number: 2}
	of := func(cluster, proposer string, number uint64, s Step) *Stand {
		return &Stand{Proposal{Cluster: cluster, Proposer: proposer, Group: in.Group, Number: number}, s}
	}
	for _, test := range []struct {
		name      string
		pledges   Pledges
		withdrawn *Stand
		want      string // empty: it promises
	}{
		{"a new node", Pledges{}, nil, ""},
		{"one that has promised itself to it", Pledges{Formation: of("new", "a", 2, promised)}, nil, ""},
		{"one that has promised itself to the proposer's earlier one", Pledges{Formation: of("old", "a", 1, promised)}, nil, ""},
		{"one that has promised itself to one that was withdrawn", Pledges{Formation: of("old", "b", 1, promised)}, of("old", "b", 1, promised), ""},
		{"a member", Pledges{Cluster: "other"}, nil, "belongs to a cluster already"},
		{"one that has voided it", Pledges{Formation: of("new", "a", 2, voided)}, nil, "takes no part in that cluster"},
		{"one that has voided it and left it", Pledges{Void: []string{"new"}}, nil, "takes no part in that cluster"},
		{"one that proposes itself", Pledges{Formation: of("old", "own", 1, proposes)}, nil, "proposes a cluster itself"},
		{"one that has promised itself to the proposer's later one", Pledges{Formation: of("later", "a", 3, promised)}, nil, "has promised itself to another"},
		{"one that has promised itself to another's", Pledges{Formation: of("old", "b", 1, promised)}, nil, "has promised itself to another"},
		{"one that has promised itself to another's since", Pledges{Formation: of("old", "b", 1, promised)}, of("older", "c", 1, promised), "has promised itself to another"},
	} {
		t.Run(test.name, func(t *testing.T) {
			err := test.pledges.promise(&in, test.withdrawn)
			if test.want == "" && (err != nil || test.pledges.Formation.Cluster != "new" || test.pledges.Formation.Step != promised) {
				t.Errorf("%v, and it stands by %+v", err, test.pledges.Formation)
			}
			if test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)) {
				t.Errorf("%v, want %q", err, test.want)
			}
		})
	}
}

// A promise is asked for by the proposer, of a node of the group.
func TestWhoAsksForAPromise(t *testing.T) {
	for _, test := range []struct {
		name, peer string
		group      []string
		want       error
	}{
		{"not the proposer", "b", []string{"a", "b", "own"}, codec.ErrMalformed},
		{"another group", "a", []string{"a", "b"}, codec.ErrMalformed},
		{"the proposer", "a", []string{"a", "own"}, nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			f, _ := newTestFormation(t, nil)
			_, err := f.servePromise(t.Context(), test.peer, Proposal{Cluster: "new", Proposer: "a", Group: test.group, Number: 1})
			if s := f.ident.Identity().Formation; !errors.Is(err, test.want) || (s != nil) != (test.want == nil) {
				t.Errorf("%v, want %v; it stands by %+v", err, test.want, s)
			}
		})
	}
}

// A node that has promised itself to another proposal asks its proposer whether that still stands.
func TestPromiseAfterAWithdrawal(t *testing.T) {
	old := &Stand{Proposal{Cluster: "old", Proposer: "b", Group: []string{"b", "own"}, Number: 1}, promised}
	in := Proposal{Cluster: "new", Proposer: "a", Group: []string{"a", "own"}, Number: 1}
	for _, test := range []struct {
		name     string
		proposer *Stand // that b stands by
		silent   bool
		want     bool // it promises itself to the new one
	}{
		{"it stands", &Stand{old.Proposal, proposes}, false, false},
		{"its proposer is silent", nil, true, false},
		{"it was withdrawn", nil, false, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			f, o := newTestFormation(t, old)
			if !test.silent {
				o.greeted["b"] = stands("b", test.proposer)
			}
			_, err := f.servePromise(t.Context(), "a", in)
			if got := f.ident.Identity().Formation.Cluster == "new"; got != test.want {
				t.Errorf("it promises: %v, %v", got, err)
			}
			if !test.want && (err == nil || !strings.Contains(err.Error(), "this node has promised itself")) {
				t.Errorf("the answer to the one that asks: %v", err)
			}
		})
	}
}

// A node voids a proposal for a node of its group, unless it has accepted it or hears its proposer.
func TestVoidings(t *testing.T) {
	synctest.Parallel(t)
	p := Proposal{Cluster: "new", Proposer: "a", Group: []string{"a", "b", "own"}, Number: 1}
	for _, test := range []struct {
		name   string
		step   Step // empty: it stands by none
		silent bool // the proposer, for long
		peer   string
		voided bool
		want   error
	}{
		{"none that it knows", "", false, "b", true, nil},
		{"promised, and the proposer is silent", promised, true, "b", true, nil},
		{"promised, and the proposer is heard", promised, false, "b", false, nil},
		{"accepted", accepted, true, "b", false, nil},
		{"voided before", voided, false, "b", true, nil},
		{"asked by a stranger", promised, true, "c", false, codec.ErrMalformed},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var stand *Stand
				if test.step != "" {
					stand = &Stand{p, test.step}
				}
				f, _ := newTestFormation(t, stand)
				if test.silent {
					time.Sleep(voidTime)
				}
				out, err := f.serveVoid(t.Context(), test.peer, p)
				if !errors.Is(err, test.want) || out.Voided != test.voided {
					t.Errorf("voided: %v, %v; want %v, %v", out.Voided, err, test.voided, test.want)
				}
				if id := f.ident.Identity(); test.voided != id.hasVoided("new") {
					t.Errorf("it has voided it: %v", !test.voided)
				}
			})
		})
	}
}

// A proposal goes on when others have said what it needs, and is left when it is known to end.
func TestProposalsWaitForOthers(t *testing.T) {
	synctest.Parallel(t)
	p := Proposal{Cluster: "new", Proposer: "a", Group: []string{"a", "b", "own"}, Number: 1}
	own := p
	own.Proposer = "own"
	for _, test := range []struct {
		name    string
		stand   Stand
		greeted []Greeting
		stoodBy string // when this node greeted others; empty: by the proposal
		prepare func(*others)
		silent  bool   // everyone, for long
		want    string // empty: the cluster lives
		stays   bool   // with the proposal
	}{
		{name: "one of three has accepted", stand: Stand{p, accepted}, want: "1 of 3 nodes have accepted", stays: true},
		{name: "two of three have accepted", stand: Stand{p, accepted}, greeted: []Greeting{stands("b", &Stand{p, accepted})}, stays: true},
		{name: "two others have accepted", stand: Stand{p, promised}, stays: true,
			greeted: []Greeting{stands("a", &Stand{p, accepted}), stands("b", &Stand{p, accepted})}},
		{name: "the proposer has accepted", stand: Stand{p, promised}, greeted: []Greeting{stands("a", &Stand{p, accepted})}, stays: true},
		{name: "nobody has promised", stand: Stand{own, proposes}, want: "waiting for the promise of", stays: true},
		{name: "one has promised", stand: Stand{own, proposes}, want: "waiting for the promise of b", stays: true,
			prepare: func(o *others) { o.promises = map[string]error{"a": nil} }},
		{name: "one refuses", stand: Stand{own, proposes}, want: "waiting for the promise of a",
			prepare: func(o *others) { o.promises = map[string]error{"a": &wire.RPCError{Message: "no"}} }},
		{name: "nobody has promised for long", stand: Stand{own, proposes}, silent: true, want: "waiting for the promise of"},
		{name: "all have promised", stand: Stand{own, proposes}, want: "1 of 3 nodes have accepted", stays: true,
			prepare: func(o *others) { o.promises = map[string]error{"a": nil, "b": nil} }},
		{name: "the proposer has not accepted", stand: Stand{p, promised}, want: "which forms the cluster", stays: true,
			greeted: []Greeting{stands("a", &Stand{p, proposes})}},
		{name: "the proposer had not proposed it yet when it answered", stand: Stand{p, promised}, stoodBy: "another",
			greeted: []Greeting{stands("a", nil)}, want: "which forms the cluster", stays: true},
		{name: "the proposer has withdrawn it", stand: Stand{p, promised}, greeted: []Greeting{stands("a", nil)}, want: "has withdrawn the cluster"},
		{name: "the proposer is silent", stand: Stand{p, promised}, want: "waiting for a", stays: true},
		{name: "the proposer is silent for long, and so is the other", stand: Stand{p, promised}, silent: true,
			want: "if it is lost for good", stays: true},
		{name: "the proposer is silent for long, and the other voids it", stand: Stand{p, promised}, silent: true,
			want: "does not come back", prepare: func(o *others) { o.voids = []string{"b"} }},
		{name: "two of three have voided it", stand: Stand{p, accepted}, want: "can never come to life",
			greeted: []Greeting{stands("a", &Stand{p, voided}), {Member: state.Member{ID: "b"}, Standing: Standing{Void: []string{"new"}}}}},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f, o := newTestFormation(t, &test.stand)
				for _, g := range test.greeted {
					o.greeted[g.ID] = g
				}
				if test.prepare != nil {
					test.prepare(o)
				}
				if test.silent {
					time.Sleep(max(voidTime, proposalTime) + 1)
				}
				r := o.round()
				if test.stoodBy != "" {
					r.stoodBy = test.stoodBy
				}
				lives, err := f.pursue(t.Context(), &r, test.stand)
				switch {
				case test.want == "" && (lives == nil || err != nil || f.ident.ClusterID() != "new"):
					t.Errorf("%+v, %v; it belongs to %q", lives, err, f.ident.ClusterID())
				case test.want != "" && (lives != nil || err == nil || !strings.Contains(err.Error(), test.want) || f.ident.ClusterID() != ""):
					t.Errorf("%+v, %v, want %q; it belongs to %q", lives, err, test.want, f.ident.ClusterID())
				}
				if s := f.ident.Identity().Formation; (s != nil) != test.stays {
					t.Errorf("it stands by %+v", s)
				}
			})
		})
	}
}

// The smallest of the nodes that are there and free proposes a cluster, and only a node that cannot
// belong to one already.
func TestWhoProposes(t *testing.T) {
	bound := &Stand{Proposal{Cluster: "old", Proposer: "x", Group: []string{"x", "y"}, Number: 1}, promised}
	for _, test := range []struct {
		name    string
		expect  int
		former  string
		greeted []Greeting
		change  func(*Round)
		want    string
		done    bool // it proposes
	}{
		{name: "too few", expect: 3, greeted: []Greeting{stands("x", nil)}, want: "2 of the 3 nodes that form the cluster are there"},
		{name: "one is bound", expect: 3, greeted: []Greeting{stands("x", bound), stands("y", nil)}, want: "others have promised themselves"},
		{name: "a smaller one is there", expect: 3, greeted: []Greeting{stands("a", nil), stands("x", nil)}, want: "the node a (a:7373) forms the cluster"},
		{name: "this is the smallest", expect: 3, greeted: []Greeting{stands("x", nil), stands("y", nil)}, want: "waiting for the promise of", done: true},
		{name: "alone", expect: 1, done: true},
		{name: "alone beside a node that does not answer", expect: 1, want: "there may be a cluster at y:7373",
			change: func(r *Round) { r.silent = []string{"y:7373"} }},
		{name: "alone, and others could not be found", expect: 0, want: "looking for it failed: no such host",
			change: func(r *Round) { r.notFound = errors.New("no such host") }},
		{name: "its state was set aside", expect: 1, former: "its former ID", want: "waiting for the cluster that this node belonged to"},
	} {
		t.Run(test.name, func(t *testing.T) {
			f, o := newTestFormation(t, nil)
			f.expect = test.expect
			if err := f.ident.Save(func(id *Identity) { id.Former = test.former }); err != nil {
				t.Fatal(err)
			}
			for _, g := range test.greeted {
				o.greeted[g.ID] = g
			}
			r := o.round()
			if test.change != nil {
				test.change(&r)
			}
			lives, err := f.begin(t.Context(), &r)
			if test.want == "" && (lives == nil || err != nil) || test.want != "" && (lives != nil || err == nil || !strings.Contains(err.Error(), test.want)) {
				t.Errorf("%+v, %v; want %q", lives, err, test.want)
			}
			if id := f.ident.Identity(); (id.Formation != nil) != test.done || (id.Proposals > 0) != test.done {
				t.Errorf("it stands by %+v after %d proposals", id.Formation, id.Proposals)
			}
		})
	}
}

// A search for peers that fails is reported, unless the node is ending.
func TestDiscoveryThatFails(t *testing.T) {
	g := &Greetings{log: testlog.None(), discover: func(context.Context) ([]string, error) { return nil, errUnreachable }}
	if _, err := g.find(t.Context()); !errors.Is(err, errUnreachable) {
		t.Errorf("%v, want %v", err, errUnreachable)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := g.find(ctx); err != nil {
		t.Errorf("when the node ends: %v", err)
	}
}
