package flotilla

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"

	"github.com/flotilla-ha/flotilla/internal/durable"
	"github.com/flotilla-ha/flotilla/internal/seal"
)

const identityFile = "node"

// identity is what a node knows of itself before it has read its log. It is written when the node is promised to a new
// cluster or becomes a member of one, not before: a node that is refused leaves nothing behind.
type identity struct {
	Version  int               // of this format
	ID       string            // 32 hexadecimal digits
	Name     string            // for people
	Key      string            // ID of the secret that the directory is sealed with
	Cluster  string            // the cluster's identity; empty: none yet
	Member   bool              // there is a log, and it must not be missing
	Left     bool              // the node has left; the next start makes a new one
	Starts   uint64            // how many processes have opened the directory since this was first written
	Proposal *proposed         `json:",omitempty"` // the cluster that this node proposes
	Promise  *proposed         `json:",omitempty"` // the one that it has promised to belong to, and to no other
	Peers    map[string]Member `json:",omitempty"` // last known addresses
}

// proposed is a cluster that one node would form with others.
type proposed struct {
	Cluster  string
	Proposer string   // node ID
	Group    []string // node IDs, the proposer's among them
}

func (id *identity) promiser() string {
	if id.Promise == nil {
		return ""
	}
	return id.Promise.Proposer
}

// loadIdentity returns the identity in dir, or a new one that is not written yet.
func loadIdentity(dir *durable.Dir, secrets []seal.Secret) (*identity, error) {
	fresh := &identity{Version: 1, ID: newID(), Key: secrets[0].ID().String()}
	b, err := dir.ReadFile(identityFile)
	if errors.Is(err, fs.ErrNotExist) {
		if dir.HasLog() {
			return nil, &ConfigError{Field: "Dir", Reason: dir.Path() + " has a raft log but no file \"" + identityFile + "\"; restore the file, or empty the directory to join as a new node"}
		}
		return fresh, nil
	}
	if err != nil {
		return nil, &ConfigError{Field: "Dir", Reason: "the node's identity cannot be read; empty the directory to join as a new node", Err: err}
	}
	var id identity
	if err := json.Unmarshal(b, &id); err != nil {
		return nil, &ConfigError{Field: "Dir", Reason: "the node's identity cannot be read; empty the directory to join as a new node", Err: err}
	}
	if id.Version != 1 {
		return nil, &ConfigError{Field: "Dir", Reason: fmt.Sprintf("%s was written by a later version of flotilla (format %d); upgrade this program", dir.Path(), id.Version)}
	}
	if id.Left {
		if err := errors.Join(dir.RemoveState(), dir.RemoveFile(ownFile)); err != nil {
			return nil, &ConfigError{Field: "Dir", Reason: "what a node that left has left behind cannot be removed", Err: err}
		}
		fresh.Name = id.Name
		return fresh, nil
	}
	for _, s := range secrets {
		if s.ID().String() == id.Key {
			return &id, nil
		}
	}
	return nil, &ConfigError{Field: "Secrets", Reason: fmt.Sprintf("%s is sealed with the secret %s, and none of the %d given is that; give the right one, or another directory", dir.Path(), id.Key, len(secrets))}
}

// save changes the identity and, if there is a directory, writes it.
func (n *Node) save(change func(*identity)) error {
	n.saving.Lock() // held across the write: only those wait who write too
	defer n.saving.Unlock()
	next := n.identity()
	change(&next)
	if n.dir != nil {
		b, err := json.MarshalIndent(&next, "", "\t")
		if err != nil {
			return err
		}
		if err := n.dir.WriteFile(identityFile, append(b, '\n')); err != nil {
			return err
		}
	}
	n.ident.Store(&next)
	return nil
}

// identity returns the identity as it was last saved.
func (n *Node) identity() identity { return *n.ident.Load() }

// clusterID returns the identity of the cluster that this node belongs to, empty if none.
func (n *Node) clusterID() string { return n.identity().Cluster }
