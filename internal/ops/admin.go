package ops

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/flotilla-ha/flotilla/internal/applied"
	"github.com/flotilla-ha/flotilla/internal/errs"
	"github.com/flotilla-ha/flotilla/internal/lifecycle"
	"github.com/flotilla-ha/flotilla/internal/membership"
	"github.com/flotilla-ha/flotilla/internal/peers"
	"github.com/flotilla-ha/flotilla/internal/replica"
	"github.com/flotilla-ha/flotilla/internal/roles"
	"github.com/flotilla-ha/flotilla/internal/rpc"
	"github.com/flotilla-ha/flotilla/internal/self"

	"github.com/hashicorp/raft"

	"github.com/flotilla-ha/flotilla/internal/codec"
	"github.com/flotilla-ha/flotilla/internal/keyspace"
	"github.com/flotilla-ha/flotilla/internal/remote"
	"github.com/flotilla-ha/flotilla/internal/state"
	"github.com/flotilla-ha/flotilla/internal/timing"
	"github.com/flotilla-ha/flotilla/internal/wire"
)

const statusTimeout = 2 * time.Second // for another node to tell its status

// Config is what an operator needs of the node around it.
type Config struct {
	Timing  timing.Timing
	Log     *slog.Logger
	Life    *lifecycle.Life
	Self    *self.Self
	Store   *applied.Store
	Book    *peers.Table
	Replica *replica.Replica
	Members *membership.Membership
	Roles   *roles.Holder
	Up      Up
}

// Up is what an operator asks of the node.
type Up struct {
	// Status returns the node's status as JSON, and whether that says why the node is not ready, if it is not.
	Status   func() (text []byte, explained bool, err error)
	Records  records
	StoreAll func(ctx context.Context, records []state.Record) error // all or none
}

// records are what the cluster stores, as certmagic.Storage has it.
type records interface {
	List(ctx context.Context, dir string, recursive bool) ([]string, error)
	Load(ctx context.Context, key string) ([]byte, error)
}

// Operator does what operators ask for from outside.
type Operator struct{ Config }

func New(cfg Config) *Operator { return &Operator{cfg} }

// HandleAdmin serves the calls by which operators look after the cluster. Any node takes them. A call that a member passes on is not passed on
// again: two nodes may each take the other for the leader.
func (n *Operator) HandleAdmin(mux *http.ServeMux) {
	mux.HandleFunc("POST "+remote.CallStatus, rpc.Bytes(n.serveStatus))
	mux.HandleFunc("POST "+remote.CallRemove, rpc.Bytes(n.serveRemove))
	mux.HandleFunc("POST "+remote.CallTransfer, rpc.Bytes(n.serveTransfer))
	mux.HandleFunc("POST "+remote.CallMove, rpc.Bytes(n.serveMove))
	mux.HandleFunc("POST "+remote.CallDrain, rpc.Bytes(n.serveDrain))
}

// serveStatus answers for this node, and for others by asking them.
func (n *Operator) serveStatus(ctx context.Context, peer string, body []byte) ([]byte, error) {
	q, err := remote.DecodeStatusRequest(body)
	if err != nil {
		return nil, codec.ErrMalformed
	}
	var reply remote.StatusReply
	for _, m := range n.listMembers() {
		if q.Node == "" || q.Node == m.ID {
			reply.Nodes = append(reply.Nodes, remote.NodeStatus{ID: m.ID, Name: m.Name, Addr: m.Addr})
		}
	}
	ctx, cancel := context.WithTimeout(ctx, statusTimeout)
	defer cancel()
	var asking sync.WaitGroup
	for i := range reply.Nodes {
		asking.Go(func() { n.fillStatus(ctx, &reply.Nodes[i], n.Replica.IsServer(peer)) })
	}
	asking.Wait()
	return reply.Encode(), nil
}

// listMembers returns this node and then the others, by name.
func (n *Operator) listMembers() []state.Member {
	self := n.Members.AsMember()
	var others []state.Member
	for _, id := range n.Replica.Others() {
		m, ok := n.Store.State().Member(id)
		if !ok {
			m, _ = n.Book.Get(id)
			m.ID = id
		}
		others = append(others, m)
	}
	slices.SortFunc(others, func(a, b state.Member) int { return strings.Compare(a.Name+"\x00"+a.ID, b.Name+"\x00"+b.ID) })
	return append([]state.Member{self}, others...)
}

// fillStatus completes what is known of a node by what it says. With here true only this one is asked.
func (n *Operator) fillStatus(ctx context.Context, out *remote.NodeStatus, here bool) {
	if out.ID == n.Self.ID {
		b, explained, err := n.Up.Status()
		if err != nil {
			out.Why = err.Error()
			return
		}
		if out.Status = b; !explained {
			out.Why = n.Members.WhyNot()
		}
		return
	}
	if here {
		out.Why = "it was not asked"
		return
	}
	b, err := n.Replica.Port.Call(ctx, out.ID, remote.CallStatus, remote.StatusRequest{Node: out.ID}.Encode())
	if err == nil {
		var reply remote.StatusReply
		if reply, err = remote.DecodeStatusReply(b); err == nil && len(reply.Nodes) == 1 {
			out.Status, out.Why = reply.Nodes[0].Status, reply.Nodes[0].Why
			return
		}
	}
	out.Why = n.unreached(ctx, out.ID, err)
}

// unreached says in a few words why another node could not be asked.
func (n *Operator) unreached(ctx context.Context, id string, err error) string {
	var answer *wire.CallError
	switch {
	case errors.As(err, &answer) && answer.Status == http.StatusNotFound:
		return "it runs an older version of flotilla, which does not know the question"
	case errors.As(err, &answer):
		return answer.Message
	case errors.Is(err, syscall.ECONNREFUSED):
		return "nobody listens at its address"
	case ctx.Err() != nil:
		return "no answer in time"
	case err == nil:
		return "its answer is malformed"
	}
	return err.Error()
}

// toLeader has the leader carry out what an operator asks for, this node or another, for some attempts' time at most. An error of serve is
// a reason to try again; what trying again would not change is an Answer.
func (n *Operator) toLeader(ctx context.Context, peer, path string, body []byte, serve func(context.Context, *replica.Leadership) (remote.Answer, error)) ([]byte, error) {
	if n.Replica.Raft.Load() == nil {
		return nil, fmt.Errorf("%w: %s", errs.NotReady, n.Members.WhyNot())
	}
	ctx, cancel := context.WithTimeoutCause(ctx, min(4*n.Replica.AttemptTimeout(), replica.WriteTimeout), errs.NoLeader)
	defer cancel()
	ctx, stop := n.Life.WhileOpen(ctx)
	defer stop()
	for {
		changed := n.Life.Changed.Wait()
		reply, err := n.toLeaderOnce(ctx, peer, path, body, serve)
		if err == nil || n.Replica.IsServer(peer) {
			return reply, err
		}
		n.Log.Debug("what an operator asks for has to wait", "call", path, "err", err)
		select {
		case <-changed:
		case <-time.After(n.Timing.Retry()):
		case <-ctx.Done():
			if n.Replica.Leader() == "" || n.Life.Works.Err() != nil {
				err = n.Life.Explain(errs.NoLeader)
			}
			return nil, err
		}
	}
}

func (n *Operator) toLeaderOnce(ctx context.Context, peer, path string, body []byte, serve func(context.Context, *replica.Leadership) (remote.Answer, error)) ([]byte, error) {
	switch leader := n.Replica.Leader(); {
	case leader == n.Self.ID:
		l, err := n.Replica.AwaitLeading(ctx)
		if err != nil {
			return nil, err
		}
		answer, err := serve(ctx, l)
		if err != nil {
			return nil, err
		}
		return answer.Encode(), nil
	case leader == "":
		return nil, errs.NoLeader
	case n.Replica.IsServer(peer):
		return nil, rpc.ErrNotLeader
	default:
		return n.Replica.Port.Call(ctx, leader, path, body)
	}
}

// refuse is the answer to what no other attempt would be answered differently.
func refuse(format string, args ...any) (remote.Answer, error) {
	return remote.Answer{Refused: true, Text: fmt.Sprintf(format, args...)}, nil
}

// done is the answer to what is done.
func done(format string, args ...any) (remote.Answer, error) {
	return remote.Answer{Text: fmt.Sprintf(format, args...)}, nil
}

func (n *Operator) serveRemove(ctx context.Context, peer string, body []byte) ([]byte, error) {
	q, err := remote.DecodeRemoveRequest(body)
	if err != nil || q.Node == "" {
		return nil, codec.ErrMalformed
	}
	return n.toLeader(ctx, peer, remote.CallRemove, body, func(ctx context.Context, l *replica.Leadership) (remote.Answer, error) {
		return n.RemoveMember(ctx, l, q)
	})
}

// RemoveMember takes another member out of the cluster, if those who are left can go on without it.
func (n *Operator) RemoveMember(ctx context.Context, l *replica.Leadership, q remote.RemoveRequest) (remote.Answer, error) {
	name := n.Book.NameOf(q.Node)
	s := n.Store.State()
	switch {
	case !n.Replica.IsServer(q.Node) && !slices.Contains(s.Servers, q.Node):
		return done("%s is no member any more", name)
	case q.Node == n.Self.ID:
		return refuse("%s leads the cluster; hand the leadership over first (flotilla members transfer)", name)
	case !q.Force && s.Session(q.Node) != nil:
		return refuse("%s is present; stop it first, or have it leave by itself (Node.Leave). With -force it is removed all the same", name)
	case !q.Force && l.Acks.There(q.Node):
		return refuse("%s answers, and is about to be present; stop it first. With -force it is removed all the same", name)
	}
	if left, there := l.Without(q.Node); there <= left/2 {
		return refuse("without %s only %d of the %d voters that are left would be there, and no majority of them; start the others first", name, there, left)
	}
	n.Log.Info("an operator removes a member", "node", q.Node, "name", name, "force", q.Force)
	if err := n.Members.Remove(ctx, l, q.Node); err != nil {
		return remote.Answer{}, fmt.Errorf("removing %s: %w", name, err)
	}
	return done("%s is no member any more; with an empty directory it joins as a new node", name)
}

func (n *Operator) serveTransfer(ctx context.Context, peer string, body []byte) ([]byte, error) {
	q, err := remote.DecodeTransferRequest(body)
	if err != nil || q.From == "" {
		return nil, codec.ErrMalformed
	}
	return n.toLeader(ctx, peer, remote.CallTransfer, body, func(ctx context.Context, l *replica.Leadership) (remote.Answer, error) {
		return n.transferFor(ctx, l, q)
	})
}

// transferFor hands this node's leadership over, for an operator.
func (n *Operator) transferFor(ctx context.Context, l *replica.Leadership, q remote.TransferRequest) (remote.Answer, error) {
	to, name := raft.ServerID(q.To), n.Book.NameOf(q.To)
	switch {
	case q.To == n.Self.ID:
		return done("%s leads", name)
	case q.To == "" && q.From != n.Self.ID:
		return done("%s leads", n.Self.Name) // the answer to an earlier call was lost
	case q.To != "":
		servers := n.Replica.Servers()
		i := slices.IndexFunc(servers, func(srv raft.Server) bool { return srv.ID == to })
		switch {
		case i < 0:
			return refuse("%s is no member", name)
		case servers[i].Suffrage != raft.Voter:
			return refuse("%s does not vote, and so cannot lead", name)
		case !l.Acks.There(q.To):
			return refuse("%s is not there; start it first, or name another node", name)
		case l.Offered(to):
			return refuse("%s was offered the leadership a moment ago and did not take it; name another node", name)
		}
	}
	ctx, cancel := context.WithTimeout(ctx, n.Replica.AttemptTimeout())
	defer cancel()
	if err := n.Replica.Transfer(ctx, q.To); err != nil {
		return refuse("the leadership stays with %s: %v", n.Self.Name, err)
	}
	for {
		changed := n.Life.Changed.Wait()
		if leader := n.Replica.Leader(); leader != "" && leader != n.Self.ID {
			if q.To != "" && leader != q.To {
				return refuse("%s leads now, and not %s", n.Book.NameOf(leader), name)
			}
			return done("%s leads", n.Book.NameOf(leader))
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return refuse("%s leads no more, and nobody else seems to yet; look again (flotilla status)", n.Self.Name)
		}
	}
}

// serveMove has a role handed over. It is this node that asks for it, whichever one the operator has called.
func (n *Operator) serveMove(ctx context.Context, _ string, body []byte) ([]byte, error) {
	q, err := remote.DecodeMoveRequest(body)
	if err != nil || q.Role == "" {
		return nil, codec.ErrMalformed
	}
	if !n.Replica.CaughtUp(ctx, 4) {
		return nil, n.Life.Explain(errs.NoLeader)
	}
	answer, err := n.moveFor(ctx, q)
	if err != nil {
		return nil, err
	}
	return answer.Encode(), nil
}

func (n *Operator) moveFor(ctx context.Context, q remote.MoveRequest) (remote.Answer, error) {
	holder := func() (state.Claim, bool) {
		queue := n.Store.State().Claims(keyspace.RolePrefix + q.Role)
		if len(queue) == 0 {
			return state.Claim{}, false
		}
		return queue[0], true
	}
	switch now, held := holder(); {
	case !held:
		return refuse("nobody holds the role %s", q.Role)
	case q.To != "" && now.Node == q.To || q.To == "" && now.Index != q.Fence: // the answer to an earlier call was lost
		return done("%s holds %s", n.Book.NameOf(now.Node), q.Role)
	case now.HoldDown != 0:
		return refuse("%s held %s and is gone; the role goes to another node by itself as soon as that is safe", n.Book.NameOf(now.Node), q.Role)
	}
	switch err := n.Roles.MoveRole(ctx, q.Role, q.To); {
	case errors.Is(err, state.ErrNoTransferee) && q.To == "":
		return refuse("no other node waits for %s", q.Role)
	case errors.Is(err, state.ErrNoTransferee):
		return refuse("%s does not wait for %s, so it cannot have it", n.Book.NameOf(q.To), q.Role)
	case errors.Is(err, errs.NoLeader), errors.Is(err, errs.Lost), errors.Is(err, errs.Closed):
		return remote.Answer{}, err
	case err != nil:
		return refuse("%s stays where it is: %v", q.Role, err)
	}
	if now, held := holder(); held {
		return done("%s holds %s", n.Book.NameOf(now.Node), q.Role)
	}
	return done("%s was given up, and nobody holds it", q.Role)
}

// serveDrain drains this node or undoes that, or has another one do it.
func (n *Operator) serveDrain(ctx context.Context, peer string, body []byte) ([]byte, error) {
	q, err := remote.DecodeDrainRequest(body)
	if err != nil || q.Node == "" {
		return nil, codec.ErrMalformed
	}
	var answer remote.Answer
	switch name := n.Book.NameOf(q.Node); {
	case q.Node == n.Self.ID && q.Undo:
		answer, err = n.undrain()
	case q.Node == n.Self.ID:
		answer, err = n.drainAside(ctx)
	case n.Replica.IsServer(peer):
		return nil, errors.New("the question is for another node")
	case !n.Replica.IsServer(q.Node):
		answer, err = refuse("%s is no member", name)
	default:
		reply, err := n.Replica.Port.Call(ctx, q.Node, remote.CallDrain, body)
		if err == nil {
			return reply, nil
		}
		answer, _ = refuse("%s cannot be asked (%s): is it running, and can %s reach it?", name, n.unreached(ctx, q.Node, err), n.Self.Name)
	}
	if err != nil {
		return nil, err
	}
	return answer.Encode(), nil
}

// drainAside takes this node out of balancers' choice and its roles off it, until undrain or its end. It goes on serving.
func (n *Operator) drainAside(ctx context.Context) (remote.Answer, error) {
	held := 0
	for _, t := range n.Roles.Tenures.All() {
		if t.IsRole() {
			held++
		}
	}
	if !n.Life.Cordoned.Swap(true) {
		n.Log.Info("an operator drains this node", "roles", held)
	}
	n.Life.Changed.Notify()
	n.Roles.Tenures.Recheck()
	ctx, stop := n.Life.WhileOpen(ctx)
	defer stop()
	if err := n.Roles.YieldAll(ctx, func(t *roles.Tenure) bool { return n.Life.Cordoned.Load() && t.IsRole() }); err != nil { // undrain may come meanwhile
		return remote.Answer{}, n.Life.Explain(err)
	}
	if held == 0 {
		return done("%s is drained; it held no roles", n.Self.Name)
	}
	return done("%s is drained, and has given up its roles (%d)", n.Self.Name, held)
}

// undrain undoes drainAside.
func (n *Operator) undrain() (remote.Answer, error) {
	if n.Life.Cordoned.Swap(false) {
		n.Log.Info("an operator has this node take part again")
	}
	n.Life.Changed.Notify()
	if n.Life.Drained.Load() || n.Life.Leaving.Load() {
		return refuse("%s is on its way out by itself, and stays drained", n.Self.Name)
	}
	return done("%s takes part again", n.Self.Name)
}
