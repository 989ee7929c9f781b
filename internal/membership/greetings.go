package membership

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/hashicorp/raft"

	"github.com/flotilla-ha/flotilla/event"
	"github.com/flotilla-ha/flotilla/internal/applied"
	"github.com/flotilla-ha/flotilla/internal/codec"
	"github.com/flotilla-ha/flotilla/internal/lease"
	"github.com/flotilla-ha/flotilla/internal/lifecycle"
	"github.com/flotilla-ha/flotilla/internal/notify"
	"github.com/flotilla-ha/flotilla/internal/peers"
	"github.com/flotilla-ha/flotilla/internal/plaintext"
	"github.com/flotilla-ha/flotilla/internal/replica"
	"github.com/flotilla-ha/flotilla/internal/rpc"
	"github.com/flotilla-ha/flotilla/internal/secrets"
	"github.com/flotilla-ha/flotilla/internal/self"
	"github.com/flotilla-ha/flotilla/internal/state"
)

// greetTimeout bounds one round of greetings, and every other short question to a peer.
const greetTimeout = time.Second

// Greetings is what nodes say of themselves: this node's own greeting, its answers, and the rounds
// in which it greets all others.
type Greetings struct {
	discover func(context.Context) ([]string, error) // nil: there is nobody to find
	secrets  *secrets.Set                            // of this node
	settings func() Settings                         // of this node
	supports uint64                                  // the newest cluster version of this program
	log      *slog.Logger
	life     *lifecycle.Life
	self     *self.Self
	ident    *IdentityFile
	store    *applied.Store
	table    *peers.Table
	replica  *replica.Replica
	leases   *lease.Manager
	copies   *Copies

	peerSettings peerSettings
	unanswered   unanswered
	heard        notify.Signal // a peer has said something new of itself
}

// Announce tells this node's leader what this node is to the others now.
func (g *Greetings) Announce(ctx context.Context) {
	g.ObserveOwn()
	leader := g.replica.Leader()
	if leader == "" || leader == g.self.ID {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, greetTimeout)
	defer cancel()
	if _, err := rpc.Call(ctx, g.replica.Port, leader, rpc.Hello, g.Greeting(), DecodeGreeting); err != nil {
		g.log.Debug("the leader was not told what this node has done", "leader", leader, "err", err)
	}
}

// ObserveOwn has the peer table know what this node is to the others.
func (g *Greetings) ObserveOwn() {
	g.table.Observe(g.AsMember(), peers.Process{Incarnation: g.self.Incarnation, Supports: g.supports})
}

// AsMember returns what this node is to the others.
func (g *Greetings) AsMember() state.Member {
	return state.Member{
		ID: g.self.ID, Name: g.self.Name, Addr: g.self.Addr, InMemory: g.replica.Dir == nil, Former: g.ident.Identity().Former,
		Secrets: g.secrets.Names(), Clean: g.replica.Snapshots.Cleaned(),
		Zone: g.self.Zone, Witness: g.self.Witness,
	}
}

// Greeting returns what this node says of itself now.
func (g *Greetings) Greeting() Greeting {
	id := g.ident.Identity()
	own := Greeting{
		Protocol:           Protocol,
		Supports:           g.supports,
		ClusterIncarnation: id.Incarnation,
		Member:             g.AsMember(),
		Incarnation:        g.self.Incarnation,
		Processes:          id.Processes,
		Last:               g.replica.LastIndex(),
		Applied:            g.replica.Applied(),
		Standing:           Standing{Cluster: id.Cluster, Formation: id.Formation, Void: id.Void},
		Lost:               g.life.LostSession.Load(),
		Settings:           g.settings(),
		Members:            g.known(),
	}
	if g.replica.Raft.Load() == nil || g.life.Setback.Load() != nil {
		return own
	}
	own.InRaft, own.Leader = true, g.replica.Leader()
	own.Committed = g.store.State().Servers
	for _, srv := range g.replica.Servers() {
		own.Servers = append(own.Servers, string(srv.ID))
		if srv.Suffrage == raft.Voter {
			own.Voters++
		}
	}
	return own
}

// known returns all nodes that this one knows.
func (g *Greetings) known() []state.Member {
	var all []state.Member
	for _, m := range g.table.All() {
		all = append(all, m)
	}
	return all
}

// ServeHello answers a greeting with this node's own one. The answer says whether the caller can go
// on.
func (g *Greetings) ServeHello(ctx context.Context, peer string, in Greeting) (Greeting, error) {
	out := g.Greeting()
	if g.life.Failure() != nil {
		return out, errors.New("this node takes no part in the cluster") // and judges nobody
	}
	if in.ID != peer {
		return out, codec.ErrMalformed
	}
	if in.ID == g.self.ID {
		if in.Incarnation != g.self.Incarnation {
			out.Refused = g.copies.meetTwin(&in)
		}
		return out, nil
	}
	if out.Refused = g.notOfThisCluster(ctx, &in, &out); out.Refused != nil {
		return out, nil
	}
	if out.Refused = g.outgrown(&in); out.Refused != nil {
		if g.table.IsNews(in.ID, in.progress()) {
			g.log.Warn("a node is refused: "+out.Refused.Why, "event", event.PeerRefused, "name", in.Name, "peer", in.ID, "addr", in.Addr)
		}
		return out, nil
	}
	if out.Refused = g.copies.Meet(ctx, &in); out.Refused != nil {
		return out, nil
	}
	g.observeLoss(&in)
	news := g.peerSettings.observe(in.ID, in.Settings)
	if why := in.Settings.unsafe(out.Settings); why != "" && g.leases.IsReady() {
		out.Refused = &Refusal{refusedSettings, why}
		if news {
			g.log.Warn("a node is refused: "+why, "event", event.PeerRefused, "name", in.Name, "peer", in.ID, "addr", in.Addr)
		}
	}
	if g.table.IsNews(in.ID, in.progress()) {
		if why := in.tooNew(); why != "" {
			g.log.Warn("a node is newer than this one: "+why, "peer", in.ID, "name", in.Name, "addr", in.Addr)
		}
		g.heard.Notify()
	}
	return out, nil
}

// notOfThisCluster refuses a node of another cluster, and one that this cluster has removed or
// evicted.
func (g *Greetings) notOfThisCluster(ctx context.Context, in, own *Greeting) *Refusal {
	switch {
	case g.store.State().Refuses(in.ID):
		return &Refusal{refusedRemoved, "the cluster has evicted it; " + asNew(in.Member) + " to join as a new node"}
	case in.Cluster == "":
		return nil
	case own.Cluster != "" && in.Cluster != own.Cluster:
		return &Refusal{refusedForeign, "its directory belongs to the cluster " + plaintext.ShortID(in.Cluster) +
			", and the node at " + g.self.Addr + " to " + plaintext.ShortID(own.Cluster) + "; give it the right directory, or other peers"}
	case own.Cluster != "" && in.ClusterIncarnation != own.ClusterIncarnation:
		return g.refuseOther(in)
	case in.Last > 0 && g.hasRemoved(in.ID) && g.leads(ctx):
		return &Refusal{refusedRemoved, "the cluster has removed it; " + asNew(in.Member) + " to join as a new node"}
	}
	return nil
}

// outgrown refuses a node whose program does not support the cluster version. It would stop at the
// first entry that it does not know.
func (g *Greetings) outgrown(in *Greeting) *Refusal {
	supports, version := in.process().Supports, g.store.State().Version
	if supports >= version {
		return nil
	}
	return &Refusal{refusedVersion, fmt.Sprintf(
		"the cluster has version %d, and its program supports %d at most; upgrade the program of %s", version, supports, in.Name)}
}

// hasRemoved reports whether this node, as a leader, knows that a node is not a member.
func (g *Greetings) hasRemoved(id string) bool {
	servers := g.store.State().Servers
	return g.replica.Leading.Load() != nil && len(servers) > 0 && !slices.Contains(servers, id)
}

// leads reports whether a majority confirms that this node leads. A leader that stood still may
// know neither its successor nor the newest members.
func (g *Greetings) leads(ctx context.Context) bool {
	_, err := g.replica.Confirm(ctx)
	return err == nil
}

// observeLoss takes a node's word that a session of its is over. If that node leads, it is
// replaced.
func (g *Greetings) observeLoss(in *Greeting) {
	g.table.SessionOver(in.ID, in.Lost)
	lost := func() bool {
		ses := g.store.State().Session(in.ID)
		return ses != nil && ses.Number == in.Lost
	}
	if lost() && g.replica.Leader() == in.ID {
		g.life.Tasks.Go(func() { g.replica.StandFor(g.life.Works, in.ID, lost) })
	}
}

// AnnounceLoss tells the other members that this node's session is over, so that they do not wait
// for its lease to expire. It returns after a second at the latest.
func (g *Greetings) AnnounceLoss(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, greetTimeout)
	defer cancel()
	for _, id := range g.replica.Others() {
		g.life.Tasks.Go(func() {
			if _, err := rpc.Call(ctx, g.replica.Port, id, rpc.Hello, g.Greeting(), DecodeGreeting); err != nil {
				g.log.Debug("a peer was not told that this node takes no part", "peer", id, "err", err)
			}
		})
	}
	<-ctx.Done()
}
