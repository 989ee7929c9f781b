package flotilla

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

// operatorConfig is what an operator needs of the node around it.
type operatorConfig struct {
	timing  timing.Timing
	log     *slog.Logger
	life    *lifecycle.Life
	self    *self.Self
	store   *applied.Store
	book    *peers.Table
	replica *replica.Replica
	members *membership.Membership
	roles   *roles.Holder
	up      operatorUp
}

// operatorUp is what an operator asks of the node.
type operatorUp struct {
	// status returns the node's status as JSON, and whether that says why the node is not ready, if it is not.
	status   func() (text []byte, explained bool, err error)
	records  records
	storeAll func(ctx context.Context, records []state.Record) error // all or none
}

// records are what the cluster stores, as certmagic.Storage has it.
type records interface {
	List(ctx context.Context, dir string, recursive bool) ([]string, error)
	Load(ctx context.Context, key string) ([]byte, error)
}

// operator does what operators ask for from outside.
type operator struct{ operatorConfig }

func newOperator(cfg operatorConfig) *operator { return &operator{cfg} }

// handleAdmin serves the calls by which operators look after the cluster. Any node takes them. A call that a member passes on is not passed on
// again: two nodes may each take the other for the leader.
func (n *operator) handleAdmin(mux *http.ServeMux) {
	mux.HandleFunc("POST "+remote.CallStatus, rpc.Bytes(n.serveStatus))
	mux.HandleFunc("POST "+remote.CallRemove, rpc.Bytes(n.serveRemove))
	mux.HandleFunc("POST "+remote.CallTransfer, rpc.Bytes(n.serveTransfer))
	mux.HandleFunc("POST "+remote.CallMove, rpc.Bytes(n.serveMove))
	mux.HandleFunc("POST "+remote.CallDrain, rpc.Bytes(n.serveDrain))
}

// serveStatus answers for this node, and for others by asking them.
func (n *operator) serveStatus(ctx context.Context, peer string, body []byte) ([]byte, error) {
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
		asking.Go(func() { n.fillStatus(ctx, &reply.Nodes[i], n.replica.IsServer(peer)) })
	}
	asking.Wait()
	return reply.Encode(), nil
}

// listMembers returns this node and then the others, by name.
func (n *operator) listMembers() []state.Member {
	self := n.members.AsMember()
	var others []state.Member
	for _, id := range n.replica.Others() {
		m, ok := n.store.State().Member(id)
		if !ok {
			m, _ = n.book.Get(id)
			m.ID = id
		}
		others = append(others, m)
	}
	slices.SortFunc(others, func(a, b state.Member) int { return strings.Compare(a.Name+"\x00"+a.ID, b.Name+"\x00"+b.ID) })
	return append([]state.Member{self}, others...)
}

// fillStatus completes what is known of a node by what it says. With here true only this one is asked.
func (n *operator) fillStatus(ctx context.Context, out *remote.NodeStatus, here bool) {
	if out.ID == n.self.ID {
		b, explained, err := n.up.status()
		if err != nil {
			out.Why = err.Error()
			return
		}
		if out.Status = b; !explained {
			out.Why = n.members.WhyNot()
		}
		return
	}
	if here {
		out.Why = "it was not asked"
		return
	}
	b, err := n.replica.Port.Call(ctx, out.ID, remote.CallStatus, remote.StatusRequest{Node: out.ID}.Encode())
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
func (n *operator) unreached(ctx context.Context, id string, err error) string {
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
func (n *operator) toLeader(ctx context.Context, peer, path string, body []byte, serve func(context.Context, *replica.Leadership) (remote.Answer, error)) ([]byte, error) {
	if n.replica.Raft.Load() == nil {
		return nil, fmt.Errorf("%w: %s", errs.NotReady, n.members.WhyNot())
	}
	ctx, cancel := context.WithTimeoutCause(ctx, min(4*n.replica.AttemptTimeout(), replica.WriteTimeout), errs.NoLeader)
	defer cancel()
	ctx, stop := n.life.WhileOpen(ctx)
	defer stop()
	for {
		changed := n.life.Changed.Wait()
		reply, err := n.toLeaderOnce(ctx, peer, path, body, serve)
		if err == nil || n.replica.IsServer(peer) {
			return reply, err
		}
		n.log.Debug("what an operator asks for has to wait", "call", path, "err", err)
		select {
		case <-changed:
		case <-time.After(n.timing.Retry()):
		case <-ctx.Done():
			if n.replica.Leader() == "" || n.life.Works.Err() != nil {
				err = n.life.Explain(errs.NoLeader)
			}
			return nil, err
		}
	}
}

func (n *operator) toLeaderOnce(ctx context.Context, peer, path string, body []byte, serve func(context.Context, *replica.Leadership) (remote.Answer, error)) ([]byte, error) {
	switch leader := n.replica.Leader(); {
	case leader == n.self.ID:
		l, err := n.replica.AwaitLeading(ctx)
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
	case n.replica.IsServer(peer):
		return nil, rpc.ErrNotLeader
	default:
		return n.replica.Port.Call(ctx, leader, path, body)
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

func (n *operator) serveRemove(ctx context.Context, peer string, body []byte) ([]byte, error) {
	q, err := remote.DecodeRemoveRequest(body)
	if err != nil || q.Node == "" {
		return nil, codec.ErrMalformed
	}
	return n.toLeader(ctx, peer, remote.CallRemove, body, func(ctx context.Context, l *replica.Leadership) (remote.Answer, error) {
		return n.removeMember(ctx, l, q)
	})
}

// removeMember takes another member out of the cluster, if those who are left can go on without it.
func (n *operator) removeMember(ctx context.Context, l *replica.Leadership, q remote.RemoveRequest) (remote.Answer, error) {
	name := n.book.NameOf(q.Node)
	s := n.store.State()
	switch {
	case !n.replica.IsServer(q.Node) && !slices.Contains(s.Servers, q.Node):
		return done("%s is no member any more", name)
	case q.Node == n.self.ID:
		return refuse("%s leads the cluster; hand the leadership over first (flotilla members transfer)", name)
	case !q.Force && s.Session(q.Node) != nil:
		return refuse("%s is present; stop it first, or have it leave by itself (Node.Leave). With -force it is removed all the same", name)
	case !q.Force && l.Acks.There(q.Node):
		return refuse("%s answers, and is about to be present; stop it first. With -force it is removed all the same", name)
	}
	if left, there := l.Without(n.replica, q.Node); there <= left/2 {
		return refuse("without %s only %d of the %d voters that are left would be there, and no majority of them; start the others first", name, there, left)
	}
	n.log.Info("an operator removes a member", "node", q.Node, "name", name, "force", q.Force)
	if err := n.members.Remove(ctx, l, q.Node); err != nil {
		return remote.Answer{}, fmt.Errorf("removing %s: %w", name, err)
	}
	return done("%s is no member any more; with an empty directory it joins as a new node", name)
}

func (n *operator) serveTransfer(ctx context.Context, peer string, body []byte) ([]byte, error) {
	q, err := remote.DecodeTransferRequest(body)
	if err != nil || q.From == "" {
		return nil, codec.ErrMalformed
	}
	return n.toLeader(ctx, peer, remote.CallTransfer, body, func(ctx context.Context, l *replica.Leadership) (remote.Answer, error) {
		return n.transferFor(ctx, l, q)
	})
}

// transferFor hands this node's leadership over, for an operator.
func (n *operator) transferFor(ctx context.Context, l *replica.Leadership, q remote.TransferRequest) (remote.Answer, error) {
	to, name := raft.ServerID(q.To), n.book.NameOf(q.To)
	switch {
	case q.To == n.self.ID:
		return done("%s leads", name)
	case q.To == "" && q.From != n.self.ID:
		return done("%s leads", n.self.Name) // the answer to an earlier call was lost
	case q.To != "":
		servers := n.replica.Servers()
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
	ctx, cancel := context.WithTimeout(ctx, n.replica.AttemptTimeout())
	defer cancel()
	if err := n.replica.Transfer(ctx, q.To); err != nil {
		return refuse("the leadership stays with %s: %v", n.self.Name, err)
	}
	for {
		changed := n.life.Changed.Wait()
		if leader := n.replica.Leader(); leader != "" && leader != n.self.ID {
			if q.To != "" && leader != q.To {
				return refuse("%s leads now, and not %s", n.book.NameOf(leader), name)
			}
			return done("%s leads", n.book.NameOf(leader))
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return refuse("%s leads no more, and nobody else seems to yet; look again (flotilla status)", n.self.Name)
		}
	}
}

// serveMove has a role handed over. It is this node that asks for it, whichever one the operator has called.
func (n *operator) serveMove(ctx context.Context, _ string, body []byte) ([]byte, error) {
	q, err := remote.DecodeMoveRequest(body)
	if err != nil || q.Role == "" {
		return nil, codec.ErrMalformed
	}
	if !n.replica.CaughtUp(ctx, 4) {
		return nil, n.life.Explain(errs.NoLeader)
	}
	answer, err := n.moveFor(ctx, q)
	if err != nil {
		return nil, err
	}
	return answer.Encode(), nil
}

func (n *operator) moveFor(ctx context.Context, q remote.MoveRequest) (remote.Answer, error) {
	holder := func() (state.Claim, bool) {
		queue := n.store.State().Claims(keyspace.RolePrefix + q.Role)
		if len(queue) == 0 {
			return state.Claim{}, false
		}
		return queue[0], true
	}
	switch now, held := holder(); {
	case !held:
		return refuse("nobody holds the role %s", q.Role)
	case q.To != "" && now.Node == q.To || q.To == "" && now.Index != q.Fence: // the answer to an earlier call was lost
		return done("%s holds %s", n.book.NameOf(now.Node), q.Role)
	case now.HoldDown != 0:
		return refuse("%s held %s and is gone; the role goes to another node by itself as soon as that is safe", n.book.NameOf(now.Node), q.Role)
	}
	switch err := n.roles.MoveRole(ctx, q.Role, q.To); {
	case errors.Is(err, state.ErrNoTransferee) && q.To == "":
		return refuse("no other node waits for %s", q.Role)
	case errors.Is(err, state.ErrNoTransferee):
		return refuse("%s does not wait for %s, so it cannot have it", n.book.NameOf(q.To), q.Role)
	case errors.Is(err, errs.NoLeader), errors.Is(err, errs.Lost), errors.Is(err, errs.Closed):
		return remote.Answer{}, err
	case err != nil:
		return refuse("%s stays where it is: %v", q.Role, err)
	}
	if now, held := holder(); held {
		return done("%s holds %s", n.book.NameOf(now.Node), q.Role)
	}
	return done("%s was given up, and nobody holds it", q.Role)
}

// serveDrain drains this node or undoes that, or has another one do it.
func (n *operator) serveDrain(ctx context.Context, peer string, body []byte) ([]byte, error) {
	q, err := remote.DecodeDrainRequest(body)
	if err != nil || q.Node == "" {
		return nil, codec.ErrMalformed
	}
	var answer remote.Answer
	switch name := n.book.NameOf(q.Node); {
	case q.Node == n.self.ID && q.Undo:
		answer, err = n.undrain()
	case q.Node == n.self.ID:
		answer, err = n.drainAside(ctx)
	case n.replica.IsServer(peer):
		return nil, errors.New("the question is for another node")
	case !n.replica.IsServer(q.Node):
		answer, err = refuse("%s is no member", name)
	default:
		reply, err := n.replica.Port.Call(ctx, q.Node, remote.CallDrain, body)
		if err == nil {
			return reply, nil
		}
		answer, _ = refuse("%s cannot be asked (%s): is it running, and can %s reach it?", name, n.unreached(ctx, q.Node, err), n.self.Name)
	}
	if err != nil {
		return nil, err
	}
	return answer.Encode(), nil
}

// drainAside takes this node out of balancers' choice and its roles off it, until undrain or its end. It goes on serving.
func (n *operator) drainAside(ctx context.Context) (remote.Answer, error) {
	held := 0
	for _, t := range n.roles.Tenures.All() {
		if t.IsRole() {
			held++
		}
	}
	if !n.life.Cordoned.Swap(true) {
		n.log.Info("an operator drains this node", "roles", held)
	}
	n.life.Changed.Notify()
	n.roles.Tenures.Recheck()
	ctx, stop := n.life.WhileOpen(ctx)
	defer stop()
	if err := n.roles.YieldAll(ctx, func(t *roles.Tenure) bool { return n.life.Cordoned.Load() && t.IsRole() }); err != nil { // undrain may come meanwhile
		return remote.Answer{}, n.life.Explain(err)
	}
	if held == 0 {
		return done("%s is drained; it held no roles", n.self.Name)
	}
	return done("%s is drained, and has given up its roles (%d)", n.self.Name, held)
}

// undrain undoes drainAside.
func (n *operator) undrain() (remote.Answer, error) {
	if n.life.Cordoned.Swap(false) {
		n.log.Info("an operator has this node take part again")
	}
	n.life.Changed.Notify()
	if n.life.Drained.Load() || n.life.Leaving.Load() {
		return refuse("%s is on its way out by itself, and stays drained", n.self.Name)
	}
	return done("%s takes part again", n.self.Name)
}
