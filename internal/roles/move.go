package roles

import (
	"context"
	"fmt"

	"github.com/flotilla-ha/flotilla/internal/errs"
	"github.com/flotilla-ha/flotilla/internal/keyspace"
	"github.com/flotilla-ha/flotilla/internal/replica"
	"github.com/flotilla-ha/flotilla/internal/state"
)

// Move is Node.Move.
func (n *Holder) Move(ctx context.Context, role, node string) error {
	if err := n.MoveRole(ctx, role, node); err != nil {
		return errs.Edge("moving the role "+role, err)
	}
	return nil
}

func (n *Holder) MoveRole(ctx context.Context, role, node string) error {
	ctx, cancel := context.WithTimeoutCause(ctx, replica.WriteTimeout, errs.NoLeader)
	defer cancel()
	id := ""
	if node != "" {
		var err error
		if id, err = n.memberID(node); err != nil {
			return err
		}
	}
	key := keyspace.RolePrefix + role
	_, a, err := n.Replica.Writes.DoIn(ctx, state.Command{Change: state.MoveRole{Role: key, Node: id}})
	if err != nil {
		return err
	}
	if err := a.Code.Err(); err != nil {
		return err
	}
	s, err := n.Store.Wait(ctx, func(s *state.State) bool {
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
		return fmt.Errorf("%s, which held it, is gone; it goes to another node as soon as that is safe", n.Book.NameOf(queue[0].Node))
	case id != "":
		return fmt.Errorf("%s waits for it no more, and %s has it now", n.Book.NameOf(id), n.Book.NameOf(queue[0].Node))
	}
	return nil
}

// Holder is Node.Holder.
func (n *Holder) Holder(role string) (fence uint64, own bool) {
	queue := n.Store.State().Claims(keyspace.RolePrefix + role)
	if len(queue) == 0 || queue[0].HoldDown != 0 {
		return 0, false
	}
	if own = queue[0].Node == n.Self.ID; own && !n.Keeper.Usable(queue[0].Session) {
		return 0, false
	}
	return queue[0].Index, own
}

// memberID returns the ID of the member with that ID or name.
func (n *Holder) memberID(node string) (string, error) {
	found := ""
	for _, srv := range n.Replica.Servers() {
		id := string(srv.ID)
		if id == node {
			return node, nil
		}
		if n.Book.Name(id) == node {
			if found != "" {
				return "", fmt.Errorf("several members have the name %s; use the ID", node)
			}
			found = id
		}
	}
	if found == "" {
		return "", fmt.Errorf("no member has the ID or name %s", node)
	}
	return found, nil
}

// Will implements Tenure.
func (t *Tenure) Will() []byte {
	will, err := t.N.Replica.Port.Will(t.N.Self.ID, t.Ref.Session, t.N.addresses())
	if err != nil {
		t.N.Log.Warn("there is no will; if this process dies, others wait for its lease to end", "err", err)
		return nil
	}
	return will
}

// addresses returns where the other members are.
func (n *Holder) addresses() []string {
	var all []string
	for _, id := range n.Replica.Others() {
		if addr, ok := n.Book.Addr(id); ok {
			all = append(all, addr)
		}
	}
	return all
}
