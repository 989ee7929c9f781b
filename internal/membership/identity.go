package membership

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/flotilla-ha/flotilla/internal/durable"
	"github.com/flotilla-ha/flotilla/internal/errs"
	"github.com/flotilla-ha/flotilla/internal/seal"
	"github.com/flotilla-ha/flotilla/internal/self"
	"github.com/flotilla-ha/flotilla/internal/slogbridge"
	"github.com/flotilla-ha/flotilla/internal/state"
)

const (
	IdentityVersion = 3 // 1 knew promises only, 2 no processes
)

// Identity is what a node knows of itself before it has read its log. It is written before any other node hears of it: what
// others count on must not be forgotten.
type Identity struct {
	Version   int                     // of this format
	ID        string                  // 32 hexadecimal digits
	Former    string                  `json:",omitempty"` // the node that this was before, which cannot come back
	Name      string                  // for people
	Key       string                  // ID of the secret that the directory is sealed with
	Cluster   string                  // the cluster's identity; empty: none yet
	Member    bool                    // there is a log, and it must not be missing
	Left      bool                    // the node has left; the next start makes a new one
	Starts    uint64                  // how many processes have opened the directory since this was first written
	Proposals uint64                  // how many clusters this node has proposed
	Formation *Stand                  `json:",omitempty"` // the proposed cluster that this node stands by
	Void      []string                `json:",omitempty"` // proposed clusters that this node takes no part in, for good
	Peers     map[string]state.Member `json:",omitempty"` // last known addresses

	// Processes have had the directory: the last one that had a session, as far as is known here, and all
	// since. The cluster knows that one too: a directory that does not is an older copy, or the original of
	// a newer one.
	Processes []string `json:",omitempty"`

	Aside string `json:",omitempty"` // all that is in the directory is to be set aside, in one of that name
	Kept  string `json:",omitempty"` // where the state of Former lies
}

// NewIdentity makes up a node.
func NewIdentity(secrets []seal.Secret) *Identity {
	return &Identity{Version: IdentityVersion, ID: self.NewID(), Key: secrets[0].ID().String()}
}

// LoadIdentity returns the identity in dir, or a new one that is not written yet.
func LoadIdentity(dir *durable.Dir, secrets []seal.Secret) (id *Identity, written bool, err error) {
	fresh := NewIdentity(secrets)
	b, err := dir.ReadFile(durable.IdentityFile)
	if errors.Is(err, fs.ErrNotExist) {
		if dir.HasLog() {
			return nil, false, &errs.ConfigError{Field: "Dir", Reason: dir.Path() + " has a raft log but no file \"" + durable.IdentityFile + "\"; restore the file, or empty the directory to join as a new node"}
		}
		return fresh, false, nil
	}
	id = new(Identity)
	if err == nil {
		err = json.Unmarshal(b, id)
	}
	if err != nil {
		return nil, false, &errs.ConfigError{Field: "Dir", Reason: "the node's identity cannot be read; empty the directory to join as a new node", Err: err}
	}
	if err := id.CheckVersion(); err != nil {
		return nil, false, &errs.ConfigError{Field: "Dir", Reason: dir.Path() + " " + err.Error()}
	}
	if id.Aside != "" {
		fresh.Name = id.Name
		id, err = setAside(dir, id, fresh)
		return id, true, err
	}
	if id.Left {
		if err := errors.Join(dir.RemoveState(), dir.RemoveFile(durable.OwnFile)); err != nil {
			return nil, false, &errs.ConfigError{Field: "Dir", Reason: "what a node that left has left behind cannot be removed", Err: err}
		}
		fresh.Name = id.Name
		return fresh, false, nil
	}
	if slices.ContainsFunc(secrets, func(s seal.Secret) bool { return s.ID().String() == id.Key }) {
		return id, true, nil
	}
	if !id.Member && id.Formation == nil { // nothing is sealed yet, and nobody counts on this node
		return fresh, false, nil
	}
	return nil, false, &errs.ConfigError{Field: "Secrets", Reason: fmt.Sprintf("%s is sealed with the secret %s, and none of the %d given is that; give the right one, or another directory", dir.Path(), id.Key, len(secrets))}
}

// CheckVersion says what is wrong with the format of an identity, if anything is.
func (id *Identity) CheckVersion() error {
	switch {
	case id.Version > IdentityVersion:
		return fmt.Errorf("was written by a later version of flotilla (format %d); upgrade this program", id.Version)
	case id.Version < IdentityVersion:
		return fmt.Errorf("was written by an earlier version of flotilla (format %d), whose directories this one cannot use; empty it to join as a new node", id.Version)
	}
	return nil
}

// IdentityFile keeps a node's identity, in its directory if it has one. Its methods are safe for concurrent use.
type IdentityFile struct {
	dir *durable.Dir // nil: in memory

	saving  sync.Mutex // held to change current
	current atomic.Pointer[Identity]
}

func NewIdentityFile(dir *durable.Dir, id *Identity) *IdentityFile {
	f := &IdentityFile{dir: dir}
	f.current.Store(id)
	return f
}

// Save changes the identity and, if there is a directory, writes it.
func (f *IdentityFile) Save(change func(*Identity)) error {
	f.saving.Lock() // held across the write: only those wait who write too
	defer f.saving.Unlock()
	next := f.Identity()
	change(&next)
	if f.dir != nil {
		b, err := json.MarshalIndent(&next, "", "\t")
		if err != nil {
			return err
		}
		if err := f.dir.WriteFile(durable.IdentityFile, append(b, '\n')); err != nil {
			return err
		}
	}
	f.current.Store(&next)
	return nil
}

// reserve has this node belong to a cluster, and promise itself to no other one from now on. It is not on disk before the node
// is a member; a process that ends before that begins anew.
func (f *IdentityFile) reserve(cluster string) error {
	f.saving.Lock()
	defer f.saving.Unlock()
	next := f.Identity()
	if f := next.Formation; f != nil && f.Cluster != cluster {
		return fmt.Errorf("this node has promised itself to the cluster that %s proposes", slogbridge.Short(f.Proposer))
	}
	next.Cluster = cluster
	f.current.Store(&next)
	return nil
}

// Identity returns the identity as it was last saved.
func (f *IdentityFile) Identity() Identity { return *f.current.Load() }

// ClusterID returns the identity of the cluster that this node belongs to, empty if none.
func (f *IdentityFile) ClusterID() string { return f.Identity().Cluster }
