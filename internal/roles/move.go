package roles

import (
	"context"
	"fmt"

	"github.com/flotilla-ha/flotilla/hold"
	"github.com/flotilla-ha/flotilla/internal/errs"
	"github.com/flotilla-ha/flotilla/internal/keyspace"
	"github.com/flotilla-ha/flotilla/internal/replica"
	"github.com/flotilla-ha/flotilla/internal/state"
)

// Move has a role handed over, as Node.Move describes. node is the ID or name of the new holder.
// Empty means the best of those who wait. An error wraps state.ErrNoTransferee if the node does
// not wait for the role, or nobody does.
func (h *Holder) Move(ctx context.Context, role, node string) error {
	ctx, cancel := context.WithTimeoutCause(ctx, replica.WriteTimeout, errs.ErrNoLeader)
	defer cancel()
	id := ""
	if node != "" {
		var err error
		if id, err = h.memberID(node); err != nil {
			return err
		}
	}
	key := keyspace.RolePrefix + role
	_, a, err := h.cfg.Replica.Writes.DoIn(ctx, state.Command{Change: state.MoveRole{Role: key, Node: id}})
	if err != nil {
		return err
	}
	if err := a.Code.Err(); err != nil {
		return err
	}
	s, err := h.cfg.Store.Wait(ctx, func(s *state.State) bool {
		queue := s.Claims(key) // empty: the holder has left, and so has the transferee
		return len(queue) == 0 || queue[0].Node == id || queue[0].Index > a.Index || queue[0].HoldDown != 0
	})
	if err != nil {
		return err
	}
	name := h.cfg.Peers.NameOf
	switch queue := s.Claims(key); {
	case len(queue) == 0 || queue[0].Node == id:
		return nil
	case queue[0].HoldDown != 0:
		return fmt.Errorf("%s, which held it, is gone; it goes to another node as soon as that is safe", name(queue[0].Node))
	case id != "":
		return fmt.Errorf("%s waits for it no more, and %s has it now", name(id), name(queue[0].Node))
	}
	return nil
}

// Current returns the role's holder, as this node knows it. The result is zero if the role is free
// or in hold-down, or if this node held it and has lost its lease.
func (h *Holder) Current(role string) hold.Holder {
	queue := h.cfg.Store.State().Claims(keyspace.RolePrefix + role)
	if len(queue) == 0 || queue[0].HoldDown != 0 {
		return hold.Holder{}
	}
	self, id, fence := h.cfg.Self, queue[0].Node, queue[0].Index
	if id != self.ID {
		addr, _ := h.cfg.Peers.Addr(id)
		return hold.Holder{ID: id, Name: h.cfg.Peers.Name(id), Addr: addr, Fence: fence}
	}
	if !h.cfg.Lease.Usable(queue[0].Session) {
		return hold.Holder{}
	}
	return hold.Holder{ID: id, Name: self.Name, Addr: self.Addr, Fence: fence, Own: true}
}

// memberID returns the ID of the member that has the given ID or name.
func (h *Holder) memberID(node string) (string, error) {
	found := ""
	for _, srv := range h.cfg.Replica.Servers() {
		id := string(srv.ID)
		if id == node {
			return node, nil
		}
		if h.cfg.Peers.Name(id) == node {
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
