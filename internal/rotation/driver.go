package rotation

import (
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"slices"

	"github.com/flotilla-ha/flotilla/internal/applied"
	"github.com/flotilla-ha/flotilla/internal/membership"
	"github.com/flotilla-ha/flotilla/internal/notify"
	"github.com/flotilla-ha/flotilla/internal/peers"
	"github.com/flotilla-ha/flotilla/internal/replica"
	"github.com/flotilla-ha/flotilla/internal/seal"
	"github.com/flotilla-ha/flotilla/internal/secrets"
	"github.com/flotilla-ha/flotilla/internal/self"
	"github.com/flotilla-ha/flotilla/internal/state"
)

// DriverConfig is what a Driver needs of the node around it. All fields are set.
type DriverConfig struct {
	Log     *slog.Logger           // gets each step that was taken
	Self    *self.Self             // this node
	Store   *applied.Store         // what it has applied
	Peers   *peers.Table           // the names of the others
	Secrets *secrets.Set           // the secrets that this node has
	Replica *replica.Replica       // proposes the steps
	Members *membership.Membership // removes a node that is evicted

	Certificates Certificates // replaces those that an evicted node knows
}

// Driver takes the steps of a replacement, on the leader. Make one with NewDriver. Its methods are
// safe for concurrent use, and may be called by a node that does not lead: the state machine then
// refuses what is out of order.
type Driver struct {
	Changed notify.Signal // the state has other secrets or keys, or another step of a replacement

	cfg DriverConfig
}

// NewDriver returns a Driver.
func NewDriver(c DriverConfig) *Driver { return &Driver{cfg: c} }

// Progress is how far a replacement is.
type Progress struct {
	// Done says that nothing is left to do.
	Done bool

	// Refused says that the replacement cannot go on. Doing says why, and what to do.
	Refused bool

	// Step counts from 1 to Steps.
	Step, Steps int

	// Doing is what the cluster does now.
	Doing string

	// Begun names the data key that is being replaced. A caller that asks again gives it back:
	// without it, another replacement begins when the last one is done.
	Begun uint64

	// Waiting has one line for each node that the step waits for, with what to do about it.
	Waiting []string
}

func refused(format string, args ...any) Progress {
	return Progress{Refused: true, Doing: fmt.Sprintf(format, args...)}
}

// Secret takes the next step to another secret. have are the IDs of the secrets that the operator
// has: the one that the cluster does not use yet is the new one. An error says that another attempt
// may succeed.
func (d *Driver) Secret(ctx context.Context, have []seal.KeyID) (Progress, error) {
	return d.advance(ctx, func() (Progress, state.Change, error) { return d.secret(have) })
}

// advance takes the next step, if there is one, and returns how far the replacement is then.
func (d *Driver) advance(ctx context.Context, look func() (Progress, state.Change, error)) (Progress, error) {
	p, next, err := look()
	if err != nil || next == nil || len(p.Waiting) > 0 {
		return p, errors.Join(err, d.nudge(ctx, p))
	}
	if err := d.take(ctx, p, next); err != nil {
		return p, err
	}
	p, _, err = look()
	return p, err
}

// secret returns how far the replacement is, and the next step. Nil: there is none.
func (d *Driver) secret(have []seal.KeyID) (p Progress, next state.Change, err error) {
	s := d.cfg.Store.State()
	to, no := target(s, have)
	if no != nil {
		return *no, nil, nil
	}
	p.Steps = 4
	switch rotation := s.Seals.Rotation; {
	case rotation == state.Rotation{} && len(s.Secrets()) == 1 && s.Secrets()[0] == to:
		p.Step, p.Doing = 4, "the nodes drop what only former secrets open"
		p.Waiting = d.unclean(s)
		p.Done = len(p.Waiting) == 0
	case rotation == state.Rotation{}:
		p.Step, p.Doing = 1, "every node gets the secret "+to.String()
		if p.Waiting = append(d.without(s, to), d.unclean(s)...); len(p.Waiting) > 0 {
			return p, nil, nil
		}
		var wrapped []byte
		wrapped, err = d.wrap(s.Keys, append(s.Secrets(), to))
		next = state.AcceptSecret{Secret: to, Wrapped: wrapped}
	case !rotation.Used:
		p.Step, p.Doing = 2, "the nodes seal everything for the secret "+to.String()+" too"
		p.Waiting = append(d.without(s, to), d.unclean(s)...)
		next = state.UseSecret{Secret: to}
	default:
		p.Step, p.Doing = 3, "the nodes use the secret "+to.String()+" among themselves"
		p.Waiting = append(d.behind(s, func(m state.Member) bool { return m.Uses(to) }, "does not use it yet"), d.unclean(s)...)
		var wrapped []byte
		wrapped, err = d.wrap(s.Keys, []seal.KeyID{to})
		next = state.DropSecrets{Secret: to, Wrapped: wrapped}
	}
	return p.orRefused(next, err)
}

// orRefused makes a refusal of the error that a secret is missing.
func (p Progress) orRefused(next state.Change, err error) (Progress, state.Change, error) {
	if no := new(missingError); errors.As(err, &no) {
		return refused("%v", no), nil, nil
	}
	return p, next, err
}

// target returns the ID of the new secret. If there is none, it returns why.
func target(s *state.State, have []seal.KeyID) (seal.KeyID, *Progress) {
	no := func(format string, args ...any) (seal.KeyID, *Progress) {
		p := refused(format, args...)
		return seal.KeyID{}, &p
	}
	if to := s.Seals.Rotation.To; to != (seal.KeyID{}) {
		if !slices.Contains(have, to) {
			return no("the cluster is replacing its secret by %v already; give that one to this command, to finish it first", to)
		}
		return to, nil
	}
	inUse, fresh, safe := s.Secrets(), fresh(s, have), unexposed(s, have)
	switch {
	case len(fresh) == 1:
		return fresh[0], nil
	case len(fresh) > 1:
		return no("%s are all new to the cluster; give this command the secret in use and one new one", names(fresh))
	case len(inUse) == 1 && len(s.Seals.Dropped) > 0 && slices.Contains(have, inUse[0]):
		return inUse[0], nil // it has been replaced, and the nodes may still be dropping the former one
	case len(inUse) > 1 && len(safe) > 0 && slices.Contains(inUse, safe[0]):
		return safe[0], nil // several are in use, and the first that the operator gives stays
	case len(have) > 0 && slices.ContainsFunc(have, func(id seal.KeyID) bool { return slices.Contains(s.Seals.Dropped, id) }):
		return no("the cluster has dropped that secret, which is never used again; make a new one (flotilla keygen)")
	}
	for _, id := range have {
		if v, known := s.Evictions.Know(id); known && !slices.Contains(inUse, id) {
			return no("%s, which was evicted, knows the secret %v; make another one (flotilla keygen)", v, id)
		}
	}
	return no("the cluster uses %s, and no other secret is given; make one (flotilla keygen), add it to the secrets of "+
		"every node, and give both to this command", names(inUse))
}

// fresh returns the secrets among have that the cluster may use next.
func fresh(s *state.State, have []seal.KeyID) []seal.KeyID {
	return slices.DeleteFunc(unexposed(s, have), func(id seal.KeyID) bool {
		return slices.Contains(s.Seals.Dropped, id) || slices.Contains(s.Secrets(), id)
	})
}

// unexposed returns the secrets among have that no evicted node knows.
func unexposed(s *state.State, have []seal.KeyID) []seal.KeyID {
	return slices.DeleteFunc(slices.Clone(have), func(id seal.KeyID) bool {
		_, known := s.Evictions.Know(id)
		return known
	})
}

// Data takes the next step to another data key. begun is what an earlier answer said, 0 at first.
// An error says that another attempt may succeed.
func (d *Driver) Data(ctx context.Context, begun uint64) (Progress, error) {
	return d.advance(ctx, func() (p Progress, next state.Change, err error) {
		p, next, err = d.data(begun)
		begun = p.Begun
		return p, next, err
	})
}

// data returns how far the replacement is, and the next step. Nil: there is none.
func (d *Driver) data(begun uint64) (p Progress, next state.Change, err error) {
	s := d.cfg.Store.State()
	ids := s.Keys.IDs()
	former := binary.BigEndian.Uint64(ids[len(ids)-1][:])
	p = Progress{Steps: 2, Begun: cmp.Or(begun, former), Waiting: d.unclean(s)}
	var wrapped []byte
	switch {
	case s.Seals.Rotation != state.Rotation{}:
		return refused("the cluster is replacing its secret; finish that first (flotilla rotate secret)"), nil, nil
	case len(ids) > 1:
		p.Step, p.Doing = 1, "the nodes seal everything with the data key "+ids[0].String()
		wrapped, err = d.wrap(s.Keys.Forget(), s.Secrets())
		next = state.ForgetKeys{Wrapped: wrapped}
	case p.Begun != former:
		p.Step, p.Doing = 2, "the nodes drop what the former data key has sealed"
		p.Done = len(p.Waiting) == 0
	default:
		p.Step, p.Doing = 1, "the nodes seal everything with a new data key"
		wrapped, err = d.wrap(s.Keys.Rotate(), s.Secrets())
		next = state.RotateKeys{Former: ids[0], Wrapped: wrapped}
	}
	return p.orRefused(next, err)
}

// nudge has another entry follow one that a former data key has sealed, if nodes wait for that. No
// node can drop the last entry of its log.
func (d *Driver) nudge(ctx context.Context, p Progress) error {
	if len(p.Waiting) == 0 || !d.cfg.Replica.Snapshots.IsLastOld() {
		return nil
	}
	_, err := d.cfg.Replica.Writes.Do(ctx, state.Command{Change: state.StartTerm{}})
	return err
}

// take proposes the next step. If the state has changed meanwhile, nothing happens, and the caller
// asks again.
func (d *Driver) take(ctx context.Context, p Progress, next state.Change) error {
	a, err := d.cfg.Replica.Writes.Do(ctx, state.Command{Change: next})
	if err == nil && a.Code == state.CodeOK {
		d.cfg.Log.Info("replacing secrets or data keys", "step", p.Step, "of", p.Steps, "what", p.Doing)
	}
	return err
}

// missingError says that this node lacks a secret that it would have to wrap the keyring with.
type missingError struct {
	node string
	id   seal.KeyID
}

func (e *missingError) Error() string {
	return fmt.Sprintf("%s, which leads, does not have the secret %v, and the keyring is wrapped with it; add it to the "+
		"secrets of that node, or have another node lead (flotilla members transfer)", e.node, e.id)
}

// wrap wraps a keyring with the secrets that the IDs name.
func (d *Driver) wrap(keys *seal.Keyring, ids []seal.KeyID) ([]byte, error) {
	var all []seal.Secret
	for _, id := range ids {
		secret, ok := d.cfg.Secrets.Find(id)
		if !ok {
			return nil, &missingError{d.cfg.Self.Name, id}
		}
		all = append(all, secret)
	}
	return keys.Wrap(all...)
}

// without returns a line for each member that does not have a secret.
func (d *Driver) without(s *state.State, id seal.KeyID) []string {
	return d.behind(s, func(m state.Member) bool { return m.HasSecret(id) },
		"does not have it; add it to the secrets of that node")
}

// unclean returns a line for each member that has something on its disk that was sealed before the
// newest change.
func (d *Driver) unclean(s *state.State) []string {
	return d.behind(s, s.IsClean, "still has what was sealed before on its disk")
}

func (d *Driver) behind(s *state.State, ok func(state.Member) bool, why string) (lines []string) {
	for _, id := range s.Behind(ok) {
		line := d.cfg.Peers.NameOf(id) + " " + why
		if s.Session(id) == nil {
			line = d.cfg.Peers.NameOf(id) + " is not there; start it, or remove it (flotilla members remove)"
		}
		if !slices.Contains(lines, line) {
			lines = append(lines, line)
		}
	}
	return lines
}
