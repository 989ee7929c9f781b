package flotilla

import (
	"context"
	"fmt"

	"github.com/flotilla-ha/flotilla/internal/errs"
	"github.com/flotilla-ha/flotilla/internal/keyspace"
	"github.com/flotilla-ha/flotilla/internal/replica"
	"github.com/flotilla-ha/flotilla/internal/state"
)

// moveRole is Node.Move.
func (n *holder) moveRole(ctx context.Context, role, node string) error {
	if err := n.move(ctx, role, node); err != nil {
		return errs.Edge("moving the role "+role, err)
	}
	return nil
}

func (n *holder) move(ctx context.Context, role, node string) error {
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
	_, a, err := n.replica.Writes.DoIn(ctx, state.Command{Change: state.MoveRole{Role: key, Node: id}})
	if err != nil {
		return err
	}
	if err := a.Code.Err(); err != nil {
		return err
	}
	s, err := n.store.Wait(ctx, func(s *state.State) bool {
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
		return fmt.Errorf("%s, which held it, is gone; it goes to another node as soon as that is safe", n.book.NameOf(queue[0].Node))
	case id != "":
		return fmt.Errorf("%s waits for it no more, and %s has it now", n.book.NameOf(id), n.book.NameOf(queue[0].Node))
	}
	return nil
}

// holder is Node.Holder.
func (n *holder) holder(role string) (fence uint64, own bool) {
	queue := n.store.State().Claims(keyspace.RolePrefix + role)
	if len(queue) == 0 || queue[0].HoldDown != 0 {
		return 0, false
	}
	if own = queue[0].Node == n.self.ID; own && !n.keeper.Usable(queue[0].Session) {
		return 0, false
	}
	return queue[0].Index, own
}

// memberID returns the ID of the member with that ID or name.
func (n *holder) memberID(node string) (string, error) {
	found := ""
	for _, srv := range n.replica.Servers() {
		id := string(srv.ID)
		if id == node {
			return node, nil
		}
		if n.book.Name(id) == node {
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
func (t *tenure) Will() []byte {
	will, err := t.n.replica.Port.Will(t.n.self.ID, t.ref.Session, t.n.addresses())
	if err != nil {
		t.n.log.Warn("there is no will; if this process dies, others wait for its lease to end", "err", err)
		return nil
	}
	return will
}

// addresses returns where the other members are.
func (n *holder) addresses() []string {
	var all []string
	for _, id := range n.replica.Others() {
		if addr, ok := n.book.Addr(id); ok {
			all = append(all, addr)
		}
	}
	return all
}
