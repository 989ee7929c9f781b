package membership

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/flotilla-ha/flotilla/internal/durable"
	"github.com/flotilla-ha/flotilla/internal/plaintext"
	"github.com/flotilla-ha/flotilla/internal/seal"
	"github.com/flotilla-ha/flotilla/internal/self"
	"github.com/flotilla-ha/flotilla/internal/state"
)

// identityVersion is the format version of the identity file. Version 1 knew promises only, and
// version 2 knew no processes.
const identityVersion = 3

// Identity is what a node knows of itself before it has read its log. It is on disk before any
// other node hears of it: what others count on must not be forgotten.
type Identity struct {
	Version     int    // of this format
	ID          string // 32 hexadecimal digits
	Former      string `json:",omitempty"` // the node that this was, which cannot come back
	Name        string // for people
	Key         string // IDs of the secrets that the directory opens with, and spaces
	Incarnation uint64 `json:",omitempty"` // of the cluster; 0: it was never restored
	Pledges
	Member bool                    // there is a log, and it must not be missing
	Left   bool                    // the node has left the cluster; the next start makes a new one
	Starts uint64                  // how many processes have opened the written directory
	Peers  map[string]state.Member `json:",omitempty"` // the members, by node ID

	// Processes are the incarnations of the processes that have had the directory: the last one
	// that had a session, as far as is known here, and all since. The state knows that one too. So
	// a directory that does not know the one in the state is an older copy, or the original of a
	// newer copy.
	Processes []string `json:",omitempty"`

	Restoring bool `json:",omitempty"` // a restore into the directory is not complete

	Aside string `json:",omitempty"` // the next start sets the state aside, in this directory
	Kept  string `json:",omitempty"` // the directory with the state of Former
}

// NewIdentity makes up a node whose directory is sealed with the first secret.
func NewIdentity(secrets []seal.Secret) *Identity {
	return &Identity{Version: identityVersion, ID: self.NewID(), Key: secrets[0].ID().String()}
}

// CheckVersion returns an error if this program cannot read the format of an identity. The error
// goes on from the name of the directory, and says what to do.
func (id *Identity) CheckVersion() error {
	switch {
	case id.Version > identityVersion:
		return fmt.Errorf("was written by a later version of flotilla (format %d); upgrade this program", id.Version)
	case id.Version < identityVersion:
		return fmt.Errorf("was written by an earlier version of flotilla (format %d), whose directories this one cannot use; "+
			"empty it to join as a new node", id.Version)
	}
	return nil
}

// OpensWith reports whether the directory opens with one of the secrets.
func (id *Identity) OpensWith(secrets []seal.Secret) bool {
	return slices.ContainsFunc(secrets, func(s seal.Secret) bool {
		return slices.Contains(strings.Fields(id.Key), s.ID().String())
	})
}

// AddProcess adds a process that has the directory from now on. Of many it keeps the first and the
// newest.
func (id *Identity) AddProcess(incarnation string) {
	all := append(append([]string(nil), id.Processes...), incarnation)
	if over := len(all) - state.MaxProcesses; over > 0 {
		all = append(all[:1:1], all[over+1:]...)
	}
	id.Processes = all
}

// encode returns the content of the identity file.
func (id *Identity) encode() ([]byte, error) {
	b, err := json.MarshalIndent(id, "", "\t")
	return append(b, '\n'), err
}

// IdentityFile keeps the identity of a node, in its directory if it has one. Its methods are safe
// for concurrent use.
type IdentityFile struct {
	dir *durable.Dir // nil: in memory

	saving  sync.Mutex // held to change current, and across the write: only writers wait for it
	current atomic.Pointer[Identity]
}

// NewIdentityFile returns the file of an identity that was loaded from dir, or made up. Without a
// directory, dir is nil, and the identity is kept in memory.
func NewIdentityFile(dir *durable.Dir, id *Identity) *IdentityFile {
	f := &IdentityFile{dir: dir}
	f.current.Store(id)
	return f
}

// Save changes the identity and writes it. After an error nothing has changed. What change replaces
// it must not modify: others read it.
func (f *IdentityFile) Save(change func(*Identity)) error {
	f.saving.Lock()
	defer f.saving.Unlock()
	next := f.Identity()
	change(&next)
	if f.dir != nil {
		b, err := next.encode()
		if err != nil {
			return err
		}
		if err := f.dir.WriteFile(durable.IdentityFile, b); err != nil {
			return err
		}
	}
	f.current.Store(&next)
	return nil
}

// reserve has this node belong to a cluster, and promise itself to no other one from now on. It is
// not on disk before the node is a member: a process that ends before that begins anew.
func (f *IdentityFile) reserve(cluster string, incarnation uint64) error {
	f.saving.Lock()
	defer f.saving.Unlock()
	next := f.Identity()
	if f := next.Formation; f != nil && f.Cluster != cluster {
		return fmt.Errorf("this node has promised itself to the cluster that %s proposes", plaintext.ShortID(f.Proposer))
	}
	next.Cluster, next.Incarnation = cluster, incarnation
	f.current.Store(&next)
	return nil
}

// Identity returns the identity as it was last saved.
func (f *IdentityFile) Identity() Identity { return *f.current.Load() }

// ClusterID returns the identity of the cluster that this node belongs to, empty if it belongs to
// none.
func (f *IdentityFile) ClusterID() string { return f.Identity().Cluster }
