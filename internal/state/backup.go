package state

import (
	"errors"
	"io"

	"github.com/flotilla-ha/flotilla/internal/codec"
	"github.com/flotilla-ha/flotilla/internal/keyspace"
	"github.com/flotilla-ha/flotilla/internal/seal"
)

// indexStep is by how much the index rises at least when a cluster is restored. The lost part of
// the old cluster's log had indexes behind that of the backup. The fences of roles are such
// indexes, and must not come a second time. At 1,000 writes a second the step is enough for 30
// years.
const indexStep = 1_000_000_000_000

// BackupHead is what a backup says of itself.
type BackupHead struct {
	// Time is when it was made, by the clock of the node that made it, in Unix nanoseconds.
	Time int64

	// Node is the name of that node, for people.
	Node string

	// Current says that a leader had confirmed that the node had everything that was acknowledged.
	Current bool
}

func (h BackupHead) encode(e *codec.Encoder) {
	e.Int(h.Time)
	e.String(h.Node)
	e.Bool(h.Current)
}

func decodeBackupHead(d *codec.Decoder) BackupHead {
	return BackupHead{Time: d.Int(), Node: d.String(), Current: d.Bool()}
}

// WriteBackup writes a sealed backup of s to w. It has the form of a snapshot, and a head. What
// belongs to the present nodes is not in it: see [State.Restored].
func WriteBackup(w io.Writer, s *State, h BackupHead) error { return writeSealed(w, s.lasting(), &h) }

// ReadBackup reads what WriteBackup wrote, as a whole. Its errors are those of [ReadSnapshot].
func ReadBackup(r io.Reader, secrets []seal.Secret) (*State, BackupHead, error) {
	s, h, err := readSealed(r, secrets)
	if err == nil && h == nil {
		err = errors.New("it is a snapshot of one node, and no backup")
	}
	if err != nil {
		return nil, BackupHead{}, err
	}
	return s, *h, nil
}

// lasting returns the part of s that outlasts its nodes: records, items, keys, evictions, and what
// tells the cluster from others. Sessions, what belongs to them, roles and members are left out.
func (s *State) lasting() *State {
	n := New()
	n.Index, n.Version, n.Cluster, n.Incarnation, n.Past = s.Index, s.Version, s.Cluster, s.Incarnation, s.Past
	n.Keys, n.Wrapped, n.Records, n.Tickets, n.Used = s.Keys, s.Wrapped, s.Records, s.Tickets, s.Used
	n.Seals.Dropped, n.Seals.Forgotten = s.Seals.Dropped, s.Seals.Forgotten
	n.Evictions = s.Evictions
	var owned int64
	n.Items, owned = s.Items.lasting()
	n.Used[keyspace.ProgramItems] -= owned
	for _, id := range s.Servers {
		if v, evicted := s.Evictions.Of(id); evicted && s.Keys != nil {
			n.Evictions = n.Evictions.with(told(s, v)) // it is no member of the next incarnation
		}
	}
	for name, r := range Each(s.Roles, nil) {
		for _, c := range r.Queue {
			n.Used[keyspace.OfClaim(string(name))] -= c.cost(string(name))
		}
	}
	return n
}

// Restored returns the state with which one node continues the cluster of s as another incarnation.
// It has what s has stored. Nobody has a session or a role. wrapped is the keyring of s, wrapped
// with the secrets of the node. Indexes begin far behind those of s, and not below floor: so one
// backup can be restored more than once.
func (s *State) Restored(node string, incarnation uint64, wrapped []byte, floor uint64) *State {
	n := s.lasting()
	n.Index = max(n.Index+indexStep, floor)
	n.Incarnation, n.Wrapped = incarnation, wrapped
	n.Servers, n.Voters, n.Elected = []string{node}, []string{node}, n.Index
	return n
}

// Term is the term of the entry that led to s.
func (s *State) Term() uint64 { return s.Past.term }
