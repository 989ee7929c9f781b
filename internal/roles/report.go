package roles

import (
	"context"
	"errors"
	"slices"

	"github.com/flotilla-ha/flotilla/internal/guard"
)

// Guard is a process that sends a death notice when this one is dead.
type Guard interface {
	// DeathNotice replaces the notice. Empty means that there is none. The guard has it when
	// DeathNotice returns nil. An error that wraps guard.ErrDown means that the next guard gets it.
	DeathNotice(ctx context.Context, notice []byte) error
}

// Report keeps the death notice of this node's session with the guard, until ctx ends. It makes
// another one when the node has another session, when the other members or their addresses change,
// and when the cluster's secret does.
func (h *Holder) Report(ctx context.Context, g Guard) {
	var (
		last   uint64 // the session of the present notice; 0: there is none
		known  []string
		secret = h.cfg.Replica.Port.SecretsChanged() // kept until it fires, so that no change is missed
	)
	for {
		sessions, members := h.cfg.Life.Sessions.Wait(), h.cfg.Peers.Changed()
		session, addrs := h.cfg.Self.Session(h.cfg.Store.State()), h.cfg.others()
		if len(addrs) == 0 {
			session = 0 // there is nobody to tell
		}
		if session != last || session != 0 && !slices.Equal(addrs, known) {
			var notice []byte
			if session != 0 {
				notice = h.cfg.deathNotice(session, addrs)
			}
			switch err := g.DeathNotice(ctx, notice); {
			case err == nil && len(notice) == 0:
			case err == nil:
				h.cfg.Log.Debug("the guard has the death notice", "session", session, "nodes", len(addrs))
			case !errors.Is(err, guard.ErrDown) && ctx.Err() == nil:
				h.cfg.Log.Warn("the guard has no death notice; if this process dies, others wait for its lease to end", "err", err)
			}
			last, known = session, addrs
		}
		select {
		case <-sessions:
		case <-members:
		case <-secret:
			secret, last = h.cfg.Replica.Port.SecretsChanged(), 0
		case <-ctx.Done():
			return
		}
	}
}

// others returns the sorted addresses of the other members.
func (c *Config) others() (addrs []string) {
	for _, id := range c.Replica.Others() {
		if addr, ok := c.Peers.Addr(id); ok {
			addrs = append(addrs, addr)
		}
	}
	slices.Sort(addrs)
	return addrs
}

// deathNotice makes the death notice of a session of this node, for the nodes at addrs. It returns
// nil if it cannot be made.
func (c *Config) deathNotice(session uint64, addrs []string) []byte {
	notice, err := c.Replica.Port.DeathNotice(c.Self.ID, session, addrs)
	if err != nil {
		c.Log.Warn("no death notice can be made; if this process dies, others wait for its lease to end", "err", err)
		return nil
	}
	return notice
}
