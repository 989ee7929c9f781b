package membership

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"

	"github.com/hashicorp/raft"

	"github.com/flotilla-ha/flotilla/internal/codec"
	"github.com/flotilla-ha/flotilla/internal/replica"
	"github.com/flotilla-ha/flotilla/internal/rpc"
	"github.com/flotilla-ha/flotilla/internal/slogbridge"
	"github.com/flotilla-ha/flotilla/internal/state"
	"github.com/flotilla-ha/flotilla/internal/wire"
)

// Greeting is what nodes tell each other of themselves, both ways.
type Greeting struct {
	state.Member
	Boot      string         // made up by the process
	Processes []string       // that have had the directory, see identity
	Last      uint64         // the newest entry in the log
	Applied   uint64         // the newest that was applied
	Cluster   string         // empty: none yet
	InRaft    bool           // has a log, and so votes if its configuration says so
	Leader    string         // node ID, if known
	Servers   []string       // node IDs of raft's configuration as this node has it
	Lost      uint64         `json:",omitempty"` // a session of this process that a setback has ended: it holds nothing and reads nothing any more
	Committed []string       // those that this node has applied
	Voters    int            // how many of them vote
	Members   []state.Member // what this node knows of others
	Formation *Stand         `json:",omitempty"` // the proposed cluster that this node stands by
	Void      []string       `json:",omitempty"` // those that it takes no part in
	Settings  Settings       // what all nodes should have alike
	// In the answer, about the caller:
	Refused *refusal `json:",omitempty"` // why it cannot go on; nil: it can
}

// joining is the leader's answer to a node that wants to be let in.
type joining struct {
	Cluster string
	Members []state.Member
}

// OnlyNewest has processes that another one has taken the place of hear that, and nothing else.
func (n *Membership) OnlyNewest(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		boot := wire.Process(r.Context())
		if boot != "" && r.URL.Path != rpc.Hello && r.URL.Path != rpc.Process {
			if err := n.IsNewest(wire.Peer(r.Context()), boot); err != nil {
				http.Error(w, err.Error(), http.StatusConflict)
				return
			}
		}
		next.ServeHTTP(w, r)
	})
}

// self is what this node is to the others.
func (n *Membership) AsMember() state.Member {
	return state.Member{ID: n.Self.ID, Name: n.Self.Name, Addr: n.Self.Addr, InMemory: n.Replica.Dir == nil, Former: n.Ident.Identity().Former}
}

// asNew says what to do with a node that is to be a new one.
func asNew(m state.Member) string {
	if m.InMemory {
		return "start it again"
	}
	return "empty its directory"
}

// Greeting describes this node.
func (n *Membership) Greeting() Greeting {
	id := n.Ident.Identity()
	g := Greeting{
		Member:    n.AsMember(),
		Boot:      n.Self.Incarnation,
		Processes: id.Processes,
		Last:      n.Replica.LastIndex(),
		Applied:   n.Replica.Applied(),
		Cluster:   id.Cluster,
		Settings:  n.Up.OwnSettings(),
		Formation: id.Formation,
		Void:      id.Void,
		Lost:      n.Life.LostSession.Load(),
	}
	if r := n.Replica.Raft.Load(); r != nil && n.Life.Setback.Load() == nil {
		g.InRaft, g.Leader = true, n.Replica.Leader()
		g.Committed = n.Store.State().Servers
		for _, srv := range n.Replica.Servers() {
			g.Servers = append(g.Servers, string(srv.ID))
			if srv.Suffrage == raft.Voter {
				g.Voters++
			}
		}
	}
	for _, m := range n.Book.All() {
		g.Members = append(g.Members, m)
	}
	return g
}

func (n *Membership) ServeHello(ctx context.Context, peer string, in Greeting) (Greeting, error) {
	out := n.Greeting()
	if n.Life.Failure() != nil {
		return out, errors.New("this node takes no part in the cluster") // and passes no verdicts
	}
	if in.ID != peer {
		return out, codec.ErrMalformed
	}
	if in.ID == n.Self.ID {
		if in.Boot != n.Self.Incarnation {
			if out.Refused = n.examineTwin(&in); out.Refused != nil {
				n.refuse(&in, out.Refused)
			}
		}
		return out, nil
	}
	if in.Cluster != "" && out.Cluster != "" && in.Cluster != out.Cluster {
		out.Refused = &refusal{refusedForeign, "its directory belongs to the cluster " + slogbridge.Short(in.Cluster) + ", and the node at " + n.Self.Addr + " to " + slogbridge.Short(out.Cluster) + "; give it the right directory, or other peers"}
		return out, nil
	}
	if in.Cluster != "" && in.Last > 0 && n.wasRemoved(in.ID) && n.leads(ctx) {
		out.Refused = &refusal{refusedRemoved, "the cluster has removed it; " + asNew(in.Member) + " to join as a new node"}
		return out, nil
	}
	if out.Refused = n.Meet(ctx, &in); out.Refused != nil {
		return out, nil
	}
	n.Book.SessionOver(in.ID, in.Lost)
	lost := func() bool {
		ses := n.Store.State().Session(in.ID)
		return ses != nil && ses.Number == in.Lost
	}
	if lost() && n.Replica.Leader() == in.ID {
		n.Life.Tasks.Go(func() { n.Replica.StandFor(n.Life.Works, in.ID, lost) }) // it leads no more
	}
	news := n.settings.hear(in.ID, in.Settings)
	if why := in.Settings.unsafe(out.Settings); why != "" && n.Keeper.IsReady() {
		out.Refused = &refusal{refusedSettings, why}
		if news {
			n.Log.Warn("a node is refused: "+why, "node", in.ID, "name", in.Name, "addr", in.Addr)
		}
	}
	if n.Book.IsNews(in.ID, in.progress()) {
		n.greeted.Notify()
	}
	return out, nil
}

// wasRemoved reports whether this node, which is current, knows that id is not a member.
func (n *Membership) wasRemoved(id string) bool {
	servers := n.Store.State().Servers
	return n.Replica.Leading.Load() != nil && len(servers) > 0 && !slices.Contains(servers, id)
}

// leads reports whether this node leads now: one that stood still may know neither its successor nor the newest members.
func (n *Membership) leads(ctx context.Context) bool {
	_, err := n.Replica.Confirm(ctx)
	return err == nil
}

func (n *Membership) ServeJoin(ctx context.Context, peer string, in Greeting) (joining, error) {
	l, err := n.Replica.AwaitLeading(ctx)
	if err != nil {
		return joining{}, err
	}
	if in.ID != peer {
		return joining{}, codec.ErrMalformed
	}
	out := joining{Cluster: n.Ident.ClusterID()}
	for _, m := range n.Book.All() {
		out.Members = append(out.Members, m)
	}
	for _, srv := range n.Replica.Servers() {
		if string(srv.ID) == peer {
			if !slices.Contains(n.Store.State().Servers, peer) {
				return out, errors.New("it is being let in")
			}
			return out, nil
		}
	}
	if why := in.Settings.unsafe(n.Up.OwnSettings()); why != "" {
		return joining{}, errors.New(why)
	}
	if no := n.Meet(ctx, &in); no != nil {
		return out, errors.New(no.Why)
	}
	n.Log.Info("a node joins", "node", in.ID, "name", in.Name, "addr", in.Addr)
	// It votes later, when it has shown that it is there to stay: a voter that is not there costs a quorum.
	return out, replica.WaitFuture(ctx, l.Raft.AddNonvoter(raft.ServerID(peer), raft.ServerAddress(peer), 0, n.Replica.AttemptTimeout()))
}

func (n *Membership) ServeLeave(ctx context.Context, peer string, in state.Member) (state.Member, error) {
	l, err := n.Replica.AwaitLeading(ctx)
	if err != nil || peer == n.Self.ID {
		return state.Member{}, rpc.ErrNotLeader
	}
	if in.ID != peer {
		return state.Member{}, codec.ErrMalformed
	}
	if !slices.Contains(n.Store.State().Servers, peer) {
		return in, nil // the answer to an earlier call was lost
	}
	if left, there := l.Without(peer); there <= left/2 {
		return state.Member{}, fmt.Errorf("without it only %d of the %d voters that are left would be there; start the others first", there, left)
	}
	settled, err := l.AwaitStable(ctx)
	if err != nil {
		return state.Member{}, err
	}
	n.Log.Info("a node leaves", "node", in.ID, "name", in.Name)
	return in, replica.WaitFuture(ctx, l.Raft.RemoveServer(raft.ServerID(peer), settled, n.Replica.AttemptTimeout()))
}

// progress says how far a node is on its way into a cluster.
func (g *Greeting) progress() string {
	said := fmt.Sprint(g.Boot, g.Addr, g.Cluster, g.InRaft, g.Leader != "", len(g.Committed), len(g.Void))
	if g.Formation != nil {
		said += g.Formation.Cluster + string(g.Formation.Step)
	}
	return said
}
