package rotation

import (
	"context"
	"crypto/rand"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/flotilla-ha/flotilla/internal/notify"
	"github.com/flotilla-ha/flotilla/internal/plaintext"
	"github.com/flotilla-ha/flotilla/internal/replica"
	"github.com/flotilla-ha/flotilla/internal/seal"
	"github.com/flotilla-ha/flotilla/internal/state"
)

const (
	idLength   = 32 // hexadecimal digits of a node's ID
	idStart    = 4  // so many of them say which node is meant
	evictSteps = 5
	rekeyAgain = 5 * time.Second // after the certificates could not be replaced
)

// Certificates replaces what an evicted node knows of certificates. id names the eviction.
type Certificates interface {
	// Rekey replaces the keys of accounts and certificates, and has the former certificates revoked.
	// It goes on where it was, and returns nil when nothing is left to do.
	Rekey(ctx context.Context, id string) error

	// Rekeyed says how far that is.
	Rekeyed(ctx context.Context, id string) (Rekeyed, error)
}

// Rekeyed is how far the replacement of certificates is.
type Rekeyed struct {
	// Accounts is how many of AllAccounts have another key.
	Accounts, AllAccounts int

	// Certificates is how many of AllCertificates have another key, or are gone. Revoked is how many
	// former ones nobody can use any more.
	Certificates, AllCertificates, Revoked int

	// Trouble has one line for each thing that fails now, with when it is tried again.
	Trouble []string

	// Notes has one line for each thing that a person must know or do.
	Notes []string
}

// EvictProgress is how far an eviction is.
type EvictProgress struct {
	Progress

	// Notes has one line for each thing that a person must know or do.
	Notes []string
}

// Evict takes the next step to evict a node, on the leader. node is its ID, its name, or the
// beginning of its ID. have are the IDs of the secrets that the operator has. An error says that
// another attempt may succeed.
func (d *Driver) Evict(ctx context.Context, l *replica.Leadership, node string, have []seal.KeyID) (EvictProgress, error) {
	v, no := evictee(d.cfg.Store.State(), node)
	if no == "" && v.ShutOut != 0 {
		return d.certificates(ctx, v)
	}
	p, err := d.shutOut(ctx, l, v, no, have)
	return EvictProgress{Progress: p}, err
}

// shutOut takes the next step until nothing that a node knows opens anything. no is why there is
// none.
func (d *Driver) shutOut(ctx context.Context, l *replica.Leadership, v state.Eviction, no string, have []seal.KeyID) (Progress, error) {
	s := d.cfg.Store.State()
	switch {
	case no != "":
		return refused("%s", no), nil
	case v.Index == 0:
		return d.beginEviction(ctx, l, s, v, have)
	case v.Node == d.cfg.Self.ID:
		return d.stepDown(ctx, l)
	case slices.Contains(s.Servers, v.Node):
		return d.expel(ctx, l, v)
	case slices.ContainsFunc(s.Secrets(), v.KnowsSecret) || s.Seals.Rotation != state.Rotation{}:
		other := slices.DeleteFunc(unexposed(s, have), func(id seal.KeyID) bool { return slices.Contains(s.Seals.Dropped, id) })
		if (s.Seals.Rotation == state.Rotation{}) && len(other) == 0 {
			return refused("%s knows the secret that the cluster uses, and no other one is given; make one (flotilla keygen), "+
				"add it to the secrets of every node, and give both to this command", v), nil
		}
		p, err := d.Secret(ctx, have)
		return p.within(2), err
	case slices.ContainsFunc(s.Keys.IDs(), func(id seal.KeyID) bool { return slices.Contains(v.Keys, id) }):
		p, err := d.Data(ctx, 0)
		return p.within(3), err
	}
	return d.dropTickets(ctx, v)
}

// within makes the progress of a replacement that of an eviction's step.
func (p Progress) within(step int) Progress {
	p.Done, p.Step, p.Steps, p.Begun = false, step, evictSteps, 0
	return p
}

func evicting(step int, format string, args ...any) Progress {
	return Progress{Doing: fmt.Sprintf(format, args...)}.within(step)
}

// evictee returns the eviction of the node that an operator names. One that is yet to begin has no
// index. If the node cannot be told, evictee returns why.
func evictee(s *state.State, node string) (v state.Eviction, why string) {
	var members, evicted []state.Eviction
	whole := len(node) == idLength && strings.Trim(node, "0123456789abcdef") == ""
	is := func(id, name string) bool {
		if whole {
			return id == node // whatever names others have given themselves
		}
		return node == name || len(node) >= idStart && strings.HasPrefix(id, node)
	}
	for _, id := range s.Servers {
		m, _ := s.Member(id)
		if v, begun := s.Evictions.Of(id); begun && is(id, v.Name) {
			evicted = append(evicted, v)
		} else if is(id, m.Name) {
			members = append(members, state.Eviction{Node: id, Name: m.Name})
		}
	}
	for _, v := range s.Evictions {
		if is(v.Node, v.Name) && !slices.Contains(s.Servers, v.Node) {
			evicted = append(evicted, v)
		}
	}
	unended := slices.DeleteFunc(slices.Clone(evicted), func(v state.Eviction) bool { return v.Ended != 0 })
	switch {
	case len(unended) == 1 && len(members) == 0:
		return unended[0], ""
	case len(members) == 1 && len(evicted) == 0:
		return members[0], ""
	case len(evicted) > 0 && len(members) == 0 && len(unended) == 0:
		return evicted[len(evicted)-1], ""
	case len(members)+len(evicted) > 0:
		var all []string
		for _, v := range append(evicted, members...) {
			all = append(all, v.Node)
		}
		return v, fmt.Sprintf("%q may be one of several nodes, some of them evicted already; give the whole ID of one: %s",
			node, strings.Join(all, ", "))
	case whole:
		return state.Eviction{Node: node}, "" // the cluster has removed it
	}
	return v, fmt.Sprintf("no member is %q; give the whole ID of a node that was removed before", node)
}

// stepDown has another node lead, because this one is to be evicted.
func (d *Driver) stepDown(ctx context.Context, l *replica.Leadership) (Progress, error) {
	p := evicting(1, "%s, which is to be evicted, hands the leadership over", d.cfg.Self.Name)
	ctx, cancel := context.WithTimeout(ctx, d.cfg.Replica.TransferTimeout())
	defer cancel()
	if err := d.cfg.Replica.Transfer(ctx, ""); err != nil {
		p.Waiting = []string{fmt.Sprintf("%s leads still (%v); switch its machine off if that lasts", d.cfg.Self.Name, err)}
		if l.HasOffered() {
			d.cfg.Replica.Stand(l.Ctx) // it has new offers to make in the next term
		}
	}
	return p, nil
}

// beginEviction has all nodes refuse the node as soon as it is no member.
func (d *Driver) beginEviction(
	ctx context.Context, l *replica.Leadership, s *state.State, v state.Eviction, have []seal.KeyID,
) (Progress, error) {
	if err := s.Admits(state.EvictMember{}); err != nil {
		return refused("%v", err), nil
	}
	m, _ := s.Member(v.Node)
	next := fresh(s, have)
	if to := s.Seals.Rotation.To; slices.Contains(have, to) {
		next = append(next, to) // the cluster is taking it already
	} else if to != (seal.KeyID{}) {
		if _, why := target(s, have); why != nil {
			return *why, nil // before the node is taken out, and nobody may join
		}
	}
	if !slices.ContainsFunc(next, func(id seal.KeyID) bool { return !m.HasSecret(id) }) {
		return refused("%s knows all the secrets that are given; make a new one (flotilla keygen), add it to the secrets of every "+
			"other node, and give it to this command beside the one in use", v), nil
	}
	if left, there := l.Without(v.Node); slices.Contains(s.Servers, v.Node) && there <= left/2 {
		return refused("without %s only %d of the %d voters that are left would be there, and no majority of them; start the others first",
			v, there, left), nil
	}
	if v.Node == d.cfg.Self.ID {
		return d.stepDown(ctx, l)
	}
	p := evicting(1, "%s is taken out of the cluster and refused", v)
	d.cfg.Log.Info("an operator evicts a node", "peer", v.Node, "name", v.Name)
	a, err := d.cfg.Replica.Writes.Do(ctx, state.Command{Change: state.EvictMember{Node: v.Node}})
	if err == nil && a.Code == state.CodeOK && slices.Contains(s.Servers, v.Node) {
		return d.expel(ctx, l, v)
	}
	return p, err
}

// expel removes the node from the cluster.
func (d *Driver) expel(ctx context.Context, l *replica.Leadership, v state.Eviction) (Progress, error) {
	p := evicting(1, "%s is taken out of the cluster and refused", v)
	if err := d.cfg.Members.Remove(ctx, l, v.Node); err != nil {
		p.Waiting = []string{fmt.Sprintf("%s is a member still: %v", v, err)}
	}
	return p, nil
}

// dropTickets drops the session tickets when nothing is left of what the node knows.
func (d *Driver) dropTickets(ctx context.Context, v state.Eviction) (Progress, error) {
	p, err := d.advance(ctx, func() (Progress, state.Change, error) {
		p := evicting(4, "the nodes drop what was sealed before, and all session tickets")
		s := d.cfg.Store.State()
		if v, _ := s.Evictions.Of(v.Node); v.ShutOut != 0 {
			return p, nil, nil
		}
		p.Waiting = d.unclean(s)
		key := make([]byte, state.TicketKeySize)
		rand.Read(key)
		return p, state.ShutOut{Node: v.Node, Key: key}, nil
	})
	return p.within(4), err
}

// certificates says how far the replacement of certificates is, which the leader sees to by itself.
func (d *Driver) certificates(ctx context.Context, v state.Eviction) (EvictProgress, error) {
	r, err := d.cfg.Certificates.Rekeyed(ctx, name(v))
	if err != nil {
		return EvictProgress{}, err
	}
	p := evicting(5, "keys replaced: %d of %d accounts, %d of %d certificates; revoked: %d",
		r.Accounts, r.AllAccounts, r.Certificates, r.AllCertificates, r.Revoked)
	p.Done = v.Ended != 0
	if !p.Done {
		p.Waiting = r.Trouble
	}
	return EvictProgress{p, r.Notes}, nil
}

// name returns the name of an eviction for Certificates.
func name(v state.Eviction) string { return strconv.FormatUint(v.Index, 10) }

// Lead replaces the certificates that evicted nodes know, while this node leads. It returns when
// the term is over.
func (d *Driver) Lead(l *replica.Leadership) {
	for l.Ctx.Err() == nil {
		changed := d.Changed.Wait()
		if v := d.latest(); v.ShutOut != 0 {
			d.endEvictions(l, v)
			continue
		}
		select {
		case <-changed:
		case <-l.Ctx.Done():
		}
	}
}

// latest returns the eviction that was shut out last, of those that have not ended.
func (d *Driver) latest() (v state.Eviction) {
	for _, x := range d.cfg.Store.State().Evictions {
		if x.ShutOut > v.ShutOut && x.Ended == 0 {
			v = x
		}
	}
	return v
}

// endEvictions replaces the certificates, again and again until nothing of the former ones is left,
// or until there is a later eviction than v. Rekey does what earlier ones have left undone. But it
// does not list what a later one makes worthless, and may wait for an authority for weeks.
func (d *Driver) endEvictions(l *replica.Leadership, v state.Eviction) {
	ctx, cancel := context.WithCancel(l.Ctx)
	defer cancel()
	defer notify.Beside(ctx, func(ctx context.Context) {
		notify.Until(ctx, func() bool { return d.latest().ShutOut > v.ShutOut }, &d.Changed)
		cancel()
	})()
	for ctx.Err() == nil {
		err := d.cfg.Certificates.Rekey(ctx, name(v))
		if err == nil {
			err = d.end(l, v)
		}
		if err == nil {
			return
		}
		if ctx.Err() == nil {
			d.cfg.Log.Warn("certificates that an evicted node knows are in use; will try again", "peer", v.Node, "name", v.Name, "err", err)
		}
		select {
		case <-time.After(rekeyAgain):
		case <-ctx.Done():
		}
	}
}

// end records the end of an eviction, and of those that were shut out before: its list has all that
// is of theirs.
func (d *Driver) end(l *replica.Leadership, last state.Eviction) error {
	for _, v := range d.cfg.Store.State().Evictions {
		if v.ShutOut == 0 || v.ShutOut > last.ShutOut || v.Ended != 0 {
			continue
		}
		if _, err := d.cfg.Replica.Writes.Do(l.Ctx, state.Command{Change: state.EndEviction{Node: v.Node}}); err != nil {
			return err
		}
		d.cfg.Log.Info("nothing that an evicted node knows is in use any more", "peer", v.Node, "name", v.Name)
	}
	return nil
}

// Unended says which evictions have not ended, and what to do. It is empty if all have.
func (d *Driver) Unended() string {
	var all []string
	for _, v := range d.cfg.Store.State().Evictions {
		switch {
		case v.ShutOut == 0:
			all = append(all, fmt.Sprintf("%s was evicted, and what it knows is in use: run the command again (flotilla evict %s)", v, plaintext.ShortID(v.Node)))
		case v.Ended == 0:
			all = append(all, fmt.Sprintf("%s was evicted, and the leader replaces the certificates that it knows", v))
		}
	}
	return strings.Join(all, "; ")
}
