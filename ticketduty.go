package flotilla

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"sync"
	"time"

	"github.com/flotilla-ha/flotilla/internal/certs"
	"github.com/flotilla-ha/flotilla/internal/clocks"
	"github.com/flotilla-ha/flotilla/internal/errs"
	"github.com/flotilla-ha/flotilla/internal/frontend/tickets"
	"github.com/flotilla-ha/flotilla/internal/replica"
	"github.com/flotilla-ha/flotilla/internal/rotation"
	"github.com/flotilla-ha/flotilla/internal/state"
	"github.com/flotilla-ha/flotilla/internal/upgrade"
	"github.com/flotilla-ha/flotilla/status"
)

// keepTickets makes and rotates the keys of session tickets while this node leads.
func (n *Node) keepTickets(l *replica.Leadership) {
	for l.Ctx.Err() == nil {
		changed, wait := n.tickets.Changed().Wait(), min(time.Minute, n.cfg.TLS.TicketRotation/4)
		k := n.store.State().Tickets
		if k == nil || k.Current == nil || n.tickets.Due(k, n.clocks.Check(clocks.MaxOffset) != nil) {
			err := n.nextTickets(l, k)
			if err == nil {
				continue
			}
			if l.Ctx.Err() == nil {
				n.log.Warn("the keys of session tickets were not rotated; will try again", "err", err)
			}
			wait = time.Second
		}
		select {
		case <-changed:
		case <-time.After(wait):
		case <-l.Ctx.Done():
		}
	}
}

// nextTickets rotates the keys once every session has applied the present ones.
func (n *Node) nextTickets(l *replica.Leadership, k *state.TicketKeys) error {
	if k != nil {
		if err := l.AwaitApplied(l.Ctx, k.Index); err != nil {
			return err
		}
	}
	a, err := n.replica.Writes.Do(l.Ctx, state.Command{Change: state.RotateTickets{Key: tickets.NewKey(), Follows: k.MadeAt()}})
	if err == nil && a.Code != state.CodeChanged {
		err = a.Code.Err()
	}
	return err
}

// DropTickets invalidates every session ticket that the cluster has issued, at once. Use it when
// somebody may know the keys of tickets, or when clients must not resume sessions. Each client then
// makes one full handshake. A node that is cut off cannot learn of this, so no node opens tickets
// without a lease. The tickets that such a node issues meanwhile may be invalid. The cluster drops
// tickets by itself when the key of a certificate is marked as compromised, as certmagic does when
// the authority has revoked the certificate for that reason. It drops them again when there is a
// new key, because until then clients have seen the old certificate. DropTickets needs a leader.
func (n *Node) DropTickets(ctx context.Context) error {
	_, err := n.replica.Writes.Do(ctx, state.Command{Change: state.DropTickets{Key: tickets.NewKey()}})
	return errs.Edge("dropping session tickets", err)
}

func ticketStatus(k *state.TicketKeys) status.Tickets {
	if k == nil {
		return status.Tickets{}
	}
	sum := sha256.Sum256(k.Current)
	since := time.Unix(0, k.Time)
	return status.Tickets{Key: hex.EncodeToString(sum[:4]), Since: since, AgeSeconds: max(0, int64(time.Since(since).Seconds())), Previous: len(k.Previous)}
}

// lead does the duties of a leader beyond raft's, until its term ends.
func (n *Node) lead(l *replica.Leadership) {
	var duties sync.WaitGroup
	defer duties.Wait()
	if !n.cfg.Witness { // it leads for a moment only
		duties.Go(func() { n.keepTickets(l) })
		duties.Go(func() { n.upkeep.rotation.Lead(l) })
	}
	duties.Go(func() { n.upkeep.version.Run(l) })
	duties.Go(func() { n.records.expiry.Run(l) })
	n.members.Lead(l)
}

// newRaiser returns what raises the cluster version while a node leads.
func newRaiser(n *Node) *upgrade.Raiser {
	return upgrade.New(upgrade.Config{
		Supports: n.cfg.version(), Log: n.log, Life: n.life, Store: n.store, Peers: n.peers, Replica: n.replica, Members: n.members,
	})
}

// version returns the newest cluster version that the node supports.
func (c *Config) version() uint64 { return cmp.Or(c.supports, state.Version) }

// newDriver returns what replaces secrets and keys, and evicts nodes, while a node leads.
func newDriver(n *Node) *rotation.Driver {
	return rotation.NewDriver(rotation.DriverConfig{
		Log: n.log, Self: n.self, Store: n.store, Peers: n.peers, Secrets: n.fsm.secrets, Replica: n.replica, Members: n.members,
		Certificates: rekeyer{n.certs},
	})
}

// rekeyer replaces the certificates that an evicted node knows.
type rekeyer struct{ *certs.Certs }

// Rekeyed implements rotation.Certificates.
func (r rekeyer) Rekeyed(ctx context.Context, id string) (rotation.Rekeyed, error) {
	p, err := r.RekeyProgress(ctx, id)
	return rotation.Rekeyed{
		Accounts: p.RolledOver, AllAccounts: p.Accounts, Certificates: p.Rekeyed + p.Deleted, AllCertificates: p.Certificates,
		Revoked: p.Revoked, Trouble: p.Trouble, Notes: p.Notes,
	}, err
}
