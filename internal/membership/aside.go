package membership

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"time"

	"github.com/flotilla-ha/flotilla/internal/durable"
	"github.com/flotilla-ha/flotilla/internal/errs"
)

// auditTime is how long Open waits for the peers to decide which process of this node is the one.
const auditTime = 5 * time.Second

// Audit asks the peers of a member whether this process may go on as it. Only when they say that the
// directory is an older copy it returns an error; the rest is seen to when the node enters its cluster.
func (n *Membership) Audit(ctx context.Context) error {
	if n.Replica.Dir == nil || !n.Ident.Identity().Member {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, auditTime)
	defer cancel()
	for {
		r := n.Greet(ctx)
		if no := new(RefusedError); errors.As(r.Err, &no) && no.Kind == refusedOlder {
			return no
		}
		if r.wait == nil {
			return nil
		}
		select {
		case <-time.After(n.Timing.Retry()):
		case <-ctx.Done():
			return nil
		}
	}
}

// GiveUp is fail for a node that may have to set its state aside: it does so when it starts again.
func (n *Membership) GiveUp(err error) {
	if no := new(RefusedError); errors.As(err, &no) && no.Kind == refusedOlder && n.Replica.Dir != nil {
		aside := durable.AsideName(time.Now())
		if saved := n.Ident.Save(func(id *Identity) { id.Aside = aside }); saved != nil {
			err = errors.Join(err, saved)
		} else {
			err = fmt.Errorf("%w; start it again: its state is then set aside in %s, and it joins as a new node", err, filepath.Join(n.Replica.Dir.Path(), aside))
		}
	}
	n.Replica.Fail(err)
}

// setAside moves a node's state into a directory of its own, and writes down that the node which begins
// anew is to have the cluster forget the one that it was. It may be repeated.
func setAside(dir *durable.Dir, id, fresh *Identity) (*Identity, error) {
	fail := func(err error) (*Identity, error) {
		return nil, &errs.ConfigError{Field: "Dir", Reason: "the state of the node, which is an older copy, cannot be set aside; move it out of " + dir.Path() + " to join as a new node", Err: err}
	}
	if err := dir.SetAside(id.Aside, durable.IdentityFile); err != nil {
		return fail(err)
	}
	fresh.Former, fresh.Kept, fresh.Peers = id.ID, id.Aside, maps.Clone(id.Peers)
	delete(fresh.Peers, id.ID)
	b, err := json.MarshalIndent(fresh, "", "\t")
	if err != nil {
		return fail(err)
	}
	if err := dir.WriteFile(durable.IdentityFile, append(b, '\n')); err != nil {
		return fail(err)
	}
	return fresh, nil
}
