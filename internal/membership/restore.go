package membership

import (
	"encoding/json"
	"errors"
	"io/fs"
	"maps"

	"github.com/flotilla-ha/flotilla/internal/durable"
	"github.com/flotilla-ha/flotilla/internal/seal"
)

// BeginRestore makes up a node of an incarnation of a cluster, and writes down that its directory
// is not complete. The directory must not be that of a node. What an interrupted restore has left
// is removed. Errors are an *errs.ConfigError.
func BeginRestore(dir *durable.Dir, secrets []seal.Secret, cluster string, incarnation uint64) (*IdentityFile, error) {
	if err := mayRestore(dir); err != nil {
		return nil, err
	}
	f := NewIdentityFile(dir, NewIdentity(secrets))
	err := f.Save(func(id *Identity) { id.Cluster, id.Incarnation, id.Restoring = cluster, incarnation, true })
	if err == nil {
		err = dir.RemoveState()
	}
	if err != nil {
		return nil, wrongDir(err, "nothing can be restored into %s", dir.Path())
	}
	return f, nil
}

// BeginRecovery is BeginRestore for the directory of a member, which it sets aside first, in the
// directory in it that has the name aside. It may be repeated after an interruption, with the same
// name.
func BeginRecovery(dir *durable.Dir, aside string, secrets []seal.Secret, cluster string, incarnation uint64) (*IdentityFile, error) {
	fail := func(err error) (*IdentityFile, error) {
		return nil, wrongDir(err, "the state in %s cannot be set aside", dir.Path())
	}
	b, err := dir.ReadFile(durable.IdentityFile)
	var old Identity
	if err == nil {
		err = json.Unmarshal(b, &old)
	}
	if err != nil {
		return fail(err)
	}
	f := NewIdentityFile(dir, &old)
	if old.Member { // the survivor's own, and not that of an earlier attempt
		if f, err = replaceIdentity(dir, aside, f, NewIdentity(secrets)); err != nil {
			return fail(err)
		}
	}
	err = f.Save(func(id *Identity) {
		id.Key = secrets[0].ID().String() // an earlier attempt may have had others
		id.Cluster, id.Incarnation, id.Restoring = cluster, incarnation, true
	})
	if err == nil {
		err = dir.RemoveState() // of an earlier attempt
	}
	if err != nil {
		return fail(err)
	}
	return f, nil
}

// replaceIdentity sets the state of a member aside, and returns the file of the identity that takes
// the place of its own. From the first step on no node starts with the directory.
func replaceIdentity(dir *durable.Dir, aside string, f *IdentityFile, fresh *Identity) (*IdentityFile, error) {
	old := f.Identity()
	if !old.Restoring {
		// The identity stays in place until another one replaces it, so that it is never missing.
		if err := dir.CopyAside(aside, durable.IdentityFile); err != nil {
			return nil, err
		}
		if err := f.Save(func(id *Identity) { id.Restoring, id.Kept = true, aside }); err != nil {
			return nil, err
		}
	}
	if err := dir.SetAsideBut(aside, durable.IdentityFile); err != nil {
		return nil, err
	}
	fresh.Former, fresh.Name, fresh.Kept, fresh.Peers = old.ID, old.Name, aside, maps.Clone(old.Peers)
	delete(fresh.Peers, old.ID)
	return NewIdentityFile(dir, fresh), nil
}

// mayRestore returns an error if a directory is that of a node on which somebody may count.
func mayRestore(dir *durable.Dir) error {
	b, err := dir.ReadFile(durable.IdentityFile)
	if errors.Is(err, fs.ErrNotExist) && !dir.HasLog() {
		return nil
	}
	var id Identity
	if err == nil && json.Unmarshal(b, &id) == nil {
		switch {
		case id.Restoring && (id.Member || id.Kept != ""):
			return interrupted(dir, &id)
		case id.Restoring, !id.Member && id.Cluster == "" && id.Formation == nil && !dir.HasLog():
			return nil
		}
	}
	return wrongDir(nil, "%s has the data of a node already; move it away, or give an empty directory", dir.Path())
}

// EndRestore writes down that the directory is complete.
func EndRestore(f *IdentityFile) error {
	if err := f.Save(func(id *Identity) { id.Restoring, id.Member = false, true }); err != nil {
		return wrongDir(err, "the node's identity cannot be written")
	}
	return nil
}
