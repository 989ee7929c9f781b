package membership

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"

	"github.com/flotilla-ha/flotilla/internal/durable"
	"github.com/flotilla-ha/flotilla/internal/errs"
	"github.com/flotilla-ha/flotilla/internal/seal"
)

// LoadIdentity returns the identity in dir. If there is none, or it must not be used any more, it
// returns a new one, which is not written yet. A state that is to be set aside is set aside. Errors
// are an *errs.ConfigError. With an error LoadIdentity returns an identity only if that is a
// member's, and no secret opens its directory.
func LoadIdentity(dir *durable.Dir, secrets []seal.Secret) (id *Identity, written bool, err error) {
	fresh := NewIdentity(secrets)
	b, err := dir.ReadFile(durable.IdentityFile)
	if errors.Is(err, fs.ErrNotExist) {
		if dir.HasLog() {
			return nil, false, wrongDir(nil, "%s has a raft log but no file %q; restore the file, or empty the directory to join as a new node",
				dir.Path(), durable.IdentityFile)
		}
		return fresh, false, nil
	}
	id = new(Identity)
	if err == nil {
		err = json.Unmarshal(b, id)
	}
	if err != nil {
		return nil, false, wrongDir(err, "the node's identity cannot be read; empty the directory to join as a new node")
	}
	if err := id.CheckVersion(); err != nil {
		return nil, false, wrongDir(nil, "%s %v", dir.Path(), err)
	}
	switch {
	case id.Restoring:
		return nil, false, interrupted(dir, id)
	case id.Aside != "":
		fresh.Name = id.Name
		id, err = setAside(dir, id, fresh)
		return id, true, err
	case id.Left:
		if err := errors.Join(dir.RemoveState(), dir.RemoveFile(durable.OwnFile)); err != nil {
			return nil, false, wrongDir(err, "the files of a node that has left the cluster cannot be removed")
		}
		fresh.Name = id.Name
		return fresh, false, nil
	}
	if id.OpensWith(secrets) {
		return id, true, nil
	}
	if !id.Member && id.Formation == nil { // nothing is sealed yet, and nobody counts on this node
		return fresh, false, nil
	}
	return id, false, &errs.ConfigError{Field: "Secrets", Reason: fmt.Sprintf(
		"%s is sealed with the secret %s, and none of the %d given is that; give the right one, or another directory",
		dir.Path(), id.Key, len(secrets))}
}

// interrupted returns the error of a directory that is not complete.
func interrupted(dir *durable.Dir, id *Identity) error {
	if id.Kept != "" {
		return wrongDir(nil, "a recovery of %s was interrupted; run it again (flotilla recover -yes)", dir.Path())
	}
	return wrongDir(nil, "a restore into %s was interrupted; run it again (flotilla restore)", dir.Path())
}

// setAside moves a node's state into a directory of its own. It writes down that the cluster has to
// forget the node of that state, and that fresh takes its place. It may be repeated.
func setAside(dir *durable.Dir, id, fresh *Identity) (*Identity, error) {
	fail := func(err error) (*Identity, error) {
		return nil, wrongDir(err, "the state of the node, which cannot be used any more, cannot be set aside; "+
			"move it out of %s to join as a new node", dir.Path())
	}
	if err := dir.SetAside(id.Aside, durable.IdentityFile); err != nil {
		return fail(err)
	}
	fresh.Former, fresh.Kept, fresh.Peers = id.ID, id.Aside, maps.Clone(id.Peers)
	delete(fresh.Peers, id.ID)
	b, err := fresh.encode()
	if err != nil {
		return fail(err)
	}
	if err := dir.WriteFile(durable.IdentityFile, b); err != nil {
		return fail(err)
	}
	return fresh, nil
}

// wrongDir makes an error about the directory.
func wrongDir(err error, format string, args ...any) error {
	return &errs.ConfigError{Field: "Dir", Reason: fmt.Sprintf(format, args...), Err: err}
}
