package flotilla

import (
	"context"
	"errors"
	"fmt"

	"github.com/flotilla-ha/flotilla/internal/codec"
	"github.com/flotilla-ha/flotilla/internal/keyspace"
	"github.com/flotilla-ha/flotilla/internal/state"
)

// errNoHeir is why a role stays where it is.
var errNoHeir = errors.New("no node waits for it that it could go to")

// Move has a role of Hold handed over to the node with that ID or name, which must be waiting for it, or, if node is empty, to
// whoever of the others would get it. It may be called on any node, and returns when the other holds the role, or when ctx ends; the role
// may still move then. Whoever has got a role so keeps it although others may be better, until it gives it up.
func (n *Node) Move(ctx context.Context, role, node string) error {
	if err := n.move(ctx, role, node); err != nil {
		return edge("moving the role "+role, err)
	}
	return nil
}

func (n *Node) move(ctx context.Context, role, node string) error {
	ctx, cancel := context.WithTimeoutCause(ctx, writeTimeout, ErrNoLeader)
	defer cancel()
	id := ""
	if node != "" {
		var err error
		if id, err = n.memberID(node); err != nil {
			return err
		}
	}
	key := keyspace.RolePrefix + role
	_, a, err := n.writes.doIn(ctx, state.Command{Change: state.MoveRole{Role: key, Node: id}})
	if err != nil {
		return err
	}
	if err := codeError(a.Code); err != nil {
		return err
	}
	s, err := n.fsm.wait(ctx, func(s *state.State) bool {
		queue := s.Claims(key) // empty: its holder has left, and the heir too
		return len(queue) == 0 || queue[0].Node == id || queue[0].Index > a.Index || queue[0].HoldDown != 0
	})
	if err != nil {
		return err
	}
	switch queue := s.Claims(key); {
	case len(queue) == 0 || queue[0].Node == id:
		return nil
	case queue[0].HoldDown != 0:
		return fmt.Errorf("%s, which held it, is gone; it goes to another node as soon as that is safe", n.nameOf(queue[0].Node))
	case id != "":
		return fmt.Errorf("%s waits for it no more, and %s has it now", n.nameOf(id), n.nameOf(queue[0].Node))
	}
	return nil
}

// Holder returns the fence of whoever holds a role of Hold now, as this node knows, and whether that is this node; 0 if nobody does who lives, or
// if this node did and has lost its lease.
func (n *Node) Holder(role string) (fence uint64, own bool) {
	queue := n.fsm.state().Claims(keyspace.RolePrefix + role)
	if len(queue) == 0 || queue[0].HoldDown != 0 {
		return 0, false
	}
	if own = queue[0].Node == n.id; own && !n.keeper.usable(queue[0].Session) {
		return 0, false
	}
	return queue[0].Index, own
}

// memberID returns the ID of the member with that ID or name.
func (n *Node) memberID(node string) (string, error) {
	found := ""
	for _, m := range n.Status().Members {
		if m.ID == node {
			return node, nil
		}
		if m.Name == node {
			if found != "" {
				return "", fmt.Errorf("several members have the name %s; use the ID", node)
			}
			found = m.ID
		}
	}
	if found == "" {
		return "", fmt.Errorf("no member has the ID or name %s", node)
	}
	return found, nil
}

// Will implements Tenure.
func (t *tenure) Will() []byte {
	will, err := t.n.port.Will(t.n.id, t.ref.Session, t.n.addresses())
	if err != nil {
		t.n.log.Warn("there is no will; if this process dies, others wait for its lease to end", "err", err)
		return nil
	}
	return will
}

// addresses returns where the other members are.
func (n *Node) addresses() []string {
	var all []string
	for _, id := range n.others() {
		if addr, ok := n.book.addr(id); ok {
			all = append(all, addr)
		}
	}
	return all
}

// serveWill ends the session of a process that is dead, and has left nothing to be seen, as the bearer of its will says. The bearer has only that to do, so
// it is seen to here until it is done.
func (n *Node) serveWill(ctx context.Context, node string, number uint64) error {
	done := func(s *state.State) bool {
		if s.Index < number || s.Number(node) == number {
			return false
		}
		for _, g := range s.InHoldDown() {
			if g.Node == node && g.Session == number && g.ReleasedOnDeath {
				return false
			}
		}
		return true
	}
	ctx, cancel := context.WithTimeoutCause(ctx, writeTimeout, ErrNoLeader)
	defer cancel()
	ctx, stop := n.whileOpen(ctx)
	defer stop()
	var last error // of the attempts
	n.until(ctx, func(ctx context.Context) error {
		last = n.passOn(ctx, node, number, done)
		return last
	})
	if ctx.Err() != nil {
		return errors.Join(context.Cause(ctx), last)
	}
	return nil
}

// passOn has the leader do it.
func (n *Node) passOn(ctx context.Context, node string, number uint64, done func(*state.State) bool) error {
	if done(n.fsm.state()) {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, n.attemptTimeout())
	defer cancel()
	switch leader := n.leader(); leader {
	case "":
		return ErrNoLeader
	case n.id:
		return n.changeSession(ctx, state.Command{Node: n.id, Change: state.EndByDeathNotice{Node: node, Number: number}}, done)
	default:
		var e codec.Encoder
		e.String(node)
		e.Uint(number)
		_, err := n.port.Call(ctx, leader, callWill, e.B)
		return err
	}
}

// serveBequest is the leader's end of passOn.
func (n *Node) serveBequest(ctx context.Context, _ string, body []byte) ([]byte, error) {
	d := codec.Decoder{B: body}
	node, number := d.String(), d.Uint()
	if err := d.End(); err != nil {
		return nil, err
	}
	return nil, n.serveWill(ctx, node, number)
}
