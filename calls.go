package flotilla

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"time"

	"github.com/hashicorp/raft"

	"github.com/flotilla-ha/flotilla/internal/codec"
	"github.com/flotilla-ha/flotilla/internal/slogbridge"
	"github.com/flotilla-ha/flotilla/internal/state"
	"github.com/flotilla-ha/flotilla/internal/wire"
)

// Calls between nodes. Their paths carry the version.
const (
	callHello   = "/1/hello"   // who is there
	callPromise = "/1/promise" // will you form a cluster with us
	callVoid    = "/1/void"    // will you take no part in a proposed cluster, whose proposer does not come back
	callProcess = "/1/process" // which process of your node are you
	callJoin    = "/1/join"    // let me in; for the leader
	callLeave   = "/1/leave"   // let me go; for the leader
	callOpen    = "/1/open"    // open a session for this process; for the leader
	callEnd     = "/1/end"     // end my session; for the leader
	callApply   = "/1/apply"   // commands; for the leader
	callConfirm = "/1/confirm" // which index is current; for the leader
	callTerm    = "/1/term"    // your raft term
	callLapsed  = "/1/lapsed"  // has this session's lease lapsed for you
	callWill    = "/1/will"    // the process of this session is dead; for the leader
)

// greeting is what nodes tell each other of themselves, both ways.
type greeting struct {
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
	Formation *stand         `json:",omitempty"` // the proposed cluster that this node stands by
	Void      []string       `json:",omitempty"` // those that it takes no part in
	Settings  settings       // what all nodes should have alike
	// In the answer, about the caller:
	Refused *refusal `json:",omitempty"` // why it cannot go on; nil: it can
}

// joining is the leader's answer to a node that wants to be let in.
type joining struct {
	Cluster string
	Members []state.Member
}

// handler serves the other nodes, which have proved that they know the secret.
func (n *Node) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST "+callHello, jsonCall(n.serveHello))
	mux.HandleFunc("POST "+callPromise, jsonCall(n.servePromise))
	mux.HandleFunc("POST "+callVoid, jsonCall(n.serveVoid))
	mux.HandleFunc("POST "+callProcess, bytesCall(n.serveProcess))
	mux.HandleFunc("POST "+callJoin, jsonCall(n.serveJoin))
	mux.HandleFunc("POST "+callLeave, jsonCall(n.serveLeave))
	mux.HandleFunc("POST "+callOpen, bytesCall(n.serveOpen))
	mux.HandleFunc("POST "+callEnd, bytesCall(n.serveEnd))
	mux.HandleFunc("POST "+callApply, bytesCall(n.serveApply))
	mux.HandleFunc("POST "+callConfirm, bytesCall(n.serveConfirm))
	mux.HandleFunc("POST "+callTerm, bytesCall(n.serveTerm))
	mux.HandleFunc("POST "+callLapsed, bytesCall(n.serveLapsed))
	mux.HandleFunc("POST "+callWill, bytesCall(n.serveBequest))
	n.handleRecords(mux)
	n.handleAdmin(mux)
	return n.forFresh(mux)
}

// forFresh has processes that another one has taken the place of hear that, and nothing else.
func (n *Node) forFresh(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		boot := wire.Process(r.Context())
		if boot != "" && r.URL.Path != callHello && r.URL.Path != callProcess {
			if err := n.fresh(wire.Peer(r.Context()), boot); err != nil {
				http.Error(w, err.Error(), http.StatusConflict)
				return
			}
		}
		next.ServeHTTP(w, r)
	})
}

// bytesCall makes a handler of a function on bytes.
func bytesCall(f func(ctx context.Context, peer string, body []byte) ([]byte, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		reply, err := f(r.Context(), wire.Peer(r.Context()), body)
		if err != nil {
			http.Error(w, err.Error(), statusOf(err))
			return
		}
		w.Write(reply)
	}
}

// jsonCall makes a handler of a function on a value.
func jsonCall[In, Out any](f func(ctx context.Context, peer string, in In) (Out, error)) http.HandlerFunc {
	return bytesCall(func(ctx context.Context, peer string, body []byte) ([]byte, error) {
		var in In
		if err := json.Unmarshal(body, &in); err != nil {
			return nil, codec.ErrMalformed
		}
		out, err := f(ctx, peer, in)
		if err != nil {
			return nil, err
		}
		return json.Marshal(out)
	})
}

func statusOf(err error) int {
	switch {
	case errors.Is(err, errNotLeader), errors.Is(err, ErrNoLeader):
		return http.StatusMisdirectedRequest
	case errors.Is(err, codec.ErrMalformed):
		return http.StatusBadRequest
	case errors.As(err, new(*supersededError)):
		return http.StatusConflict
	}
	return http.StatusServiceUnavailable
}

// call asks a node a question in JSON.
func call[Out any](ctx context.Context, n *Node, id, path string, in any) (Out, error) {
	var out Out
	body, err := json.Marshal(in)
	if err != nil {
		return out, err
	}
	reply, err := n.port.Call(ctx, id, path, body)
	if err != nil {
		return out, err
	}
	return out, json.Unmarshal(reply, &out)
}

// self is what this node is to the others.
func (n *Node) self() state.Member {
	return state.Member{ID: n.id, Name: n.name, Addr: n.addr, InMemory: n.dir == nil, Former: n.identity().Former}
}

// asNew says what to do with a node that is to be a new one.
func asNew(m state.Member) string {
	if m.InMemory {
		return "start it again"
	}
	return "empty its directory"
}

// greeting describes this node.
func (n *Node) greeting() greeting {
	id := n.identity()
	g := greeting{
		Member:    n.self(),
		Boot:      n.boot,
		Processes: id.Processes,
		Last:      n.lastIndex(),
		Applied:   n.applied(),
		Cluster:   id.Cluster,
		Settings:  n.ownSettings(),
		Formation: id.Formation,
		Void:      id.Void,
		Lost:      n.lostSession.Load(),
	}
	if r := n.raft.Load(); r != nil && n.setback.Load() == nil {
		g.InRaft, g.Leader = true, n.leader()
		g.Committed = n.fsm.state().Servers
		for _, srv := range n.servers() {
			g.Servers = append(g.Servers, string(srv.ID))
			if srv.Suffrage == raft.Voter {
				g.Voters++
			}
		}
	}
	for _, m := range n.book.all() {
		g.Members = append(g.Members, m)
	}
	return g
}

func (n *Node) serveHello(ctx context.Context, peer string, in greeting) (greeting, error) {
	out := n.greeting()
	if n.failure() != nil {
		return out, errors.New("this node takes no part in the cluster") // and passes no verdicts
	}
	if in.ID != peer {
		return out, codec.ErrMalformed
	}
	if in.ID == n.id {
		if in.Boot != n.boot {
			if out.Refused = n.examineTwin(&in); out.Refused != nil {
				n.refuse(&in, out.Refused)
			}
		}
		return out, nil
	}
	if in.Cluster != "" && out.Cluster != "" && in.Cluster != out.Cluster {
		out.Refused = &refusal{refusedForeign, "its directory belongs to the cluster " + slogbridge.Short(in.Cluster) + ", and the node at " + n.addr + " to " + slogbridge.Short(out.Cluster) + "; give it the right directory, or other peers"}
		return out, nil
	}
	if in.Cluster != "" && in.Last > 0 && n.wasRemoved(in.ID) && n.leads(ctx) {
		out.Refused = &refusal{refusedRemoved, "the cluster has removed it; " + asNew(in.Member) + " to join as a new node"}
		return out, nil
	}
	if out.Refused = n.meet(ctx, &in); out.Refused != nil {
		return out, nil
	}
	n.book.lose(in.ID, in.Lost)
	lost := func() bool {
		ses := n.fsm.state().Session(in.ID)
		return ses != nil && ses.Number == in.Lost
	}
	if lost() && n.leader() == in.ID {
		n.tasks.Go(func() { n.standFor(n.works, in.ID, lost) }) // it leads no more
	}
	news := n.settings.hear(in.ID, in.Settings)
	if why := in.Settings.unsafe(out.Settings); why != "" && n.isReady() {
		out.Refused = &refusal{refusedSettings, why}
		if news {
			n.log.Warn("a node is refused: "+why, "node", in.ID, "name", in.Name, "addr", in.Addr)
		}
	}
	if n.book.isNews(&in) {
		n.greeted.Notify()
	}
	return out, nil
}

// wasRemoved reports whether this node, which is current, knows that id is not a member.
func (n *Node) wasRemoved(id string) bool {
	servers := n.fsm.state().Servers
	return n.leading.Load() != nil && len(servers) > 0 && !slices.Contains(servers, id)
}

// leads reports whether this node leads now: one that stood still may know neither its successor nor the newest members.
func (n *Node) leads(ctx context.Context) bool {
	_, err := n.confirm(ctx)
	return err == nil
}

func (n *Node) serveJoin(ctx context.Context, peer string, in greeting) (joining, error) {
	l, err := n.awaitLeading(ctx)
	if err != nil {
		return joining{}, err
	}
	if in.ID != peer {
		return joining{}, codec.ErrMalformed
	}
	out := joining{Cluster: n.clusterID()}
	for _, m := range n.book.all() {
		out.Members = append(out.Members, m)
	}
	for _, srv := range n.servers() {
		if string(srv.ID) == peer {
			if !slices.Contains(n.fsm.state().Servers, peer) {
				return out, errors.New("it is being let in")
			}
			return out, nil
		}
	}
	if why := in.Settings.unsafe(n.ownSettings()); why != "" {
		return joining{}, errors.New(why)
	}
	if no := n.meet(ctx, &in); no != nil {
		return out, errors.New(no.Why)
	}
	n.log.Info("a node joins", "node", in.ID, "name", in.Name, "addr", in.Addr)
	// It votes later, when it has shown that it is there to stay: a voter that is not there costs a quorum.
	return out, waitFuture(ctx, l.raft.AddNonvoter(raft.ServerID(peer), raft.ServerAddress(peer), 0, n.attemptTimeout()))
}

func (n *Node) serveLeave(ctx context.Context, peer string, in state.Member) (state.Member, error) {
	l, err := n.awaitLeading(ctx)
	if err != nil || peer == n.id {
		return state.Member{}, errNotLeader
	}
	if in.ID != peer {
		return state.Member{}, codec.ErrMalformed
	}
	if !slices.Contains(n.fsm.state().Servers, peer) {
		return in, nil // the answer to an earlier call was lost
	}
	if left, there := l.without(n, peer); there <= left/2 {
		return state.Member{}, fmt.Errorf("without it only %d of the %d voters that are left would be there; start the others first", there, left)
	}
	settled, err := l.settle(ctx, n)
	if err != nil {
		return state.Member{}, err
	}
	n.log.Info("a node leaves", "node", in.ID, "name", in.Name)
	return in, waitFuture(ctx, l.raft.RemoveServer(raft.ServerID(peer), settled, n.attemptTimeout()))
}

// serveOpen opens a session for the caller's process, in place of the one that it has seen, its last process's or one whose lease it
// has lost. The caller waits for it in its own state.
func (n *Node) serveOpen(ctx context.Context, peer string, body []byte) ([]byte, error) {
	d := codec.Decoder{B: body}
	boot, seen, clean, addr, processes := d.String(), d.Uint(), d.Bool(), d.String(), d.Bytes()
	if err := d.End(); err != nil {
		return nil, err
	}
	if !slices.Contains(n.fsm.state().Servers, peer) {
		return nil, errors.New("not a member of the cluster")
	}
	if l := n.leading.Load(); l != nil && l.expels(peer) {
		return nil, errors.New("it is being removed from the cluster")
	}
	if err := n.mayOpen(ctx, peer, boot, state.DecodeProcesses(processes)); err != nil {
		return nil, err
	}
	return nil, n.changeSession(ctx, state.Command{Node: peer, Change: state.OpenSession{Incarnation: boot, Addr: addr, Processes: state.DecodeProcesses(processes), Replaces: seen, Clean: clean}}, func(s *state.State) bool {
		return s.Number(peer) != seen
	})
}

// serveEnd ends the caller's session, at its own wish.
func (n *Node) serveEnd(ctx context.Context, peer string, body []byte) ([]byte, error) {
	d := codec.Decoder{B: body}
	number, lingers := d.Uint(), d.Bool()
	if err := d.End(); err != nil {
		return nil, err
	}
	return nil, n.changeSession(ctx, state.Command{Node: peer, Change: state.LeaveSession{Number: number, HoldDown: lingers, Stored: n.storedBy(peer, wire.Process(ctx))}}, func(s *state.State) bool {
		ses := s.Session(peer)
		return ses == nil || ses.Number != number
	})
}

func (n *Node) changeSession(ctx context.Context, c state.Command, done func(*state.State) bool) error {
	l, err := n.awaitLeading(ctx)
	if err != nil {
		return err
	}
	c.Time = time.Now().UnixNano()
	return l.applyAndTell(ctx, n, &c, done)
}

func (n *Node) serveConfirm(ctx context.Context, peer string, _ []byte) ([]byte, error) {
	index, err := n.confirm(ctx)
	if err != nil {
		return nil, err
	}
	if l := n.leading.Load(); l != nil && peer != n.id {
		l.acks.returned(peer, index)
	}
	return n.encodeConfirmed(index), nil
}

func (n *Node) serveTerm(context.Context, string, []byte) ([]byte, error) {
	term, err := n.knownTerm()
	if err != nil {
		return nil, err
	}
	var e codec.Encoder
	e.Uint(term)
	return e.B, nil
}

// isCallError reports whether a peer answered, and answered no.
func isCallError(err error) bool {
	var e *wire.CallError
	return errors.As(err, &e)
}
