package flotilla

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/raft"

	"github.com/flotilla-ha/flotilla/internal/applied"
	"github.com/flotilla-ha/flotilla/internal/durable"
	"github.com/flotilla-ha/flotilla/internal/errs"
	"github.com/flotilla-ha/flotilla/internal/keyspace"
	"github.com/flotilla-ha/flotilla/internal/membership"
	"github.com/flotilla-ha/flotilla/internal/seal"
	secretset "github.com/flotilla-ha/flotilla/internal/secrets"
	"github.com/flotilla-ha/flotilla/internal/state"
)

// Inspection describes the contents of a node's data directory.
type Inspection struct {
	ID      string // of the node
	Name    string // for people, as it was when the node joined
	Cluster string // the cluster's ID; empty: none yet
	Secret  string // ID of the secret with which the directory is sealed
	Starts  uint64 // processes started with it, not counting the one that made it
	Left    bool   // the node has left its cluster, and will start as a new node
	InUse   bool   // a process uses it: its log was not read, so entries of the log are missing here

	Term        uint64 // raft's; 0 if the log was not read
	First, Last uint64 // indexes of the first and last entry in the log; 0: none, or not read
	LogBytes    int64  // size of the log's file in bytes

	Snapshots     int       // number of snapshots
	SnapshotIndex uint64    // index of the last entry in the newest snapshot
	SnapshotTerm  uint64    // the term of that entry
	SnapshotBytes int64     // size of the newest snapshot in bytes
	SnapshotTime  time.Time // when it was begun, by this machine's clock; zero: there is none

	// Agreed is the newest entry that the node knows the cluster to have agreed on. Tail are those
	// behind it, on which it may have agreed or not: the directory does not tell. If Agreed is above
	// Last, entries that were agreed on are missing, as after a power cut of all machines.
	Agreed uint64
	Tail   []TailEntry

	// Interrupted says that a Restore into the directory, or a Recover of it, was interrupted. No
	// node starts with it until that is completed.
	Interrupted bool

	// Index is the last entry that the fields below include. They come from the newest snapshot, and
	// from the entries of the log if that was read. The directory alone does not show which of the
	// newest entries the cluster had agreed on.
	Index   uint64
	Members []Member     // the cluster's
	Roles   []RoleStatus // roles that were held
	Records []string     // names of the stored records; values are not shown
	Entries []string     // the entries of Node.KV, as bucket and key with a slash between them
	Bytes   int64        // size of all names and values
}

// TailEntry is an entry of the log on which a cluster may not have agreed.
type TailEntry struct {
	Index uint64 // of the entry
	Term  uint64 // raft's
	What  string // what it does, without any value
}

// Inspect reads a node's data directory and changes nothing in it. It needs one of the cluster's
// secrets. If a node runs with the directory, the log is not read, because it changes all the time.
// A node cannot start with the directory while Inspect reads it. If Inspect returns an error, the
// Inspection holds what was found before that.
func Inspect(dir string, secrets ...Secret) (Inspection, error) {
	var out Inspection
	err := out.Read(dir, func(string, int64, int64) {}, secrets...)
	return out, err
}

// Read is Inspect into an empty Inspection, for a directory that is large. It calls progress again
// and again: what it reads now, "snapshot" or "log", and how much of that is done. A snapshot is
// counted in bytes. The log is counted in entries, and total is an estimate, or 0 if it is not
// known.
func (out *Inspection) Read(dir string, progress func(what string, done, total int64), secrets ...Secret) error {
	if len(secrets) == 0 {
		return errs.Edge("inspecting "+dir, errors.New("no secret is given"))
	}
	v, err := durable.Look(dir)
	if err != nil {
		return errs.Edge("inspecting "+dir, err)
	}
	_, _, err = out.read(v, rawSecrets(secrets), progress)
	return errs.Edge("inspecting "+dir, errors.Join(err, v.Close()))
}

// read returns the state that the node knows to be agreed on, and the one with all entries.
func (out *Inspection) read(
	v *durable.View, secrets []seal.Secret, progress func(what string, done, total int64),
) (agreed, all *state.State, err error) {
	id, err := out.readIdentity(v, secrets)
	if err != nil {
		return nil, nil, err
	}
	f := newFSM(fsmConfig{store: applied.New(), secrets: secretset.New(secrets)})
	first, err := out.readSnapshots(v, secrets, progress)
	for again := 0; again < 3 && v.InUse && errors.Is(err, fs.ErrNotExist); again++ {
		// A newer snapshot has replaced it.
		first, err = out.readSnapshots(v, secrets, progress)
	}
	if err != nil {
		return nil, nil, err
	}
	out.Agreed = max(first.Index, v.ReadMark().Index)
	agreed, all = first, first
	// The log begins behind the snapshot, or some entries before.
	ahead := int64(out.Agreed - first.Index)
	progress("log", 0, ahead)
	log, err := v.Log(func(e *raft.Log) (err error) {
		if e.Index > first.Index {
			progress("log", int64(e.Index-first.Index), max(ahead, int64(e.Index-first.Index)))
		}
		if e.Index <= first.Index || e.Type != raft.LogCommand && e.Type != raft.LogConfiguration {
			return nil
		}
		if e.Index > out.Agreed {
			out.Tail = append(out.Tail, TailEntry{e.Index, e.Term, describeEntry(all, e)})
		}
		if all, err = f.ApplyOne(all, e, nil); err != nil {
			return fmt.Errorf("entry %d of the log: %w", e.Index, err)
		}
		if e.Index <= out.Agreed {
			agreed = all
		}
		return nil
	})
	if err == fs.ErrNotExist && !id.Member || v.InUse {
		err = nil
	}
	if err == nil {
		out.Term, out.First, out.Last, out.LogBytes = log.Term, log.First, log.Last, log.Bytes
		out.show(all)
	}
	return agreed, all, err
}

// describeEntry says what an entry does to the state s.
func describeEntry(s *state.State, e *raft.Log) string {
	if e.Type == raft.LogConfiguration {
		return "changes the members"
	}
	if s.Keys == nil {
		return "gives the cluster its keys"
	}
	plain, err := state.OpenEntry(s.Keys, e.Data)
	if err != nil {
		return err.Error()
	}
	c, err := state.DecodeCommand(plain)
	if err != nil {
		return err.Error()
	}
	return c.Describe()
}

// readIdentity reads who the node is. One of the secrets must be that of the directory.
func (out *Inspection) readIdentity(v *durable.View, secrets []seal.Secret) (id membership.Identity, err error) {
	out.InUse = v.InUse
	b, err := v.ReadFile(durable.IdentityFile)
	if errors.Is(err, fs.ErrNotExist) {
		return id, errors.New("it has no file \"" + durable.IdentityFile + "\", so it is not a node's data directory, or its node was never in a cluster")
	}
	if err == nil {
		err = json.Unmarshal(b, &id)
	}
	if err != nil {
		return id, fmt.Errorf("the node's identity cannot be read: %w", err)
	}
	if err := id.CheckVersion(); err != nil {
		return id, fmt.Errorf("it %w", err)
	}
	if out.Interrupted = id.Restoring; id.Restoring {
		return id, errors.New("a restore into it, or a recovery of it, was interrupted; run that again")
	}
	out.ID, out.Name, out.Cluster, out.Secret, out.Starts, out.Left = id.ID, id.Name, id.Cluster, id.Key, id.Starts, id.Left
	if !id.OpensWith(secrets) {
		return id, fmt.Errorf("it is sealed with the secret %s, and none of the %d given secrets is that one; give the right one", id.Key, len(secrets))
	}
	return id, nil
}

// readSnapshots reads the newest snapshot, and records what is known about all of them.
func (out *Inspection) readSnapshots(
	v *durable.View, secrets []seal.Secret, progress func(what string, done, total int64),
) (*state.State, error) {
	snaps, err := v.Snapshots()
	if err != nil {
		return nil, fmt.Errorf("the snapshots cannot be read: %w", err)
	}
	if out.Snapshots = len(snaps); len(snaps) == 0 {
		return state.New(), nil
	}
	m := snaps[0]
	out.SnapshotIndex, out.SnapshotTerm, out.SnapshotBytes, out.SnapshotTime = m.Index, m.Term, m.Size, snapshotTime(m.ID)
	_, r, err := v.OpenSnapshot(m.ID)
	if err != nil {
		return nil, fmt.Errorf("the newest snapshot: %w", err)
	}
	defer r.Close()
	s, err := state.ReadSnapshot(&snapshotReader{r: r, size: m.Size, progress: progress}, secrets)
	if err != nil {
		return nil, fmt.Errorf("the newest snapshot: %w", err)
	}
	return s, nil
}

// snapshotReader reads a snapshot of size bytes, and says how far it is.
type snapshotReader struct {
	r          io.Reader
	done, size int64
	progress   func(what string, done, total int64)
}

func (s *snapshotReader) Read(p []byte) (int, error) {
	n, err := s.r.Read(p)
	s.done += int64(n)
	s.progress("snapshot", s.done, s.size)
	return n, err
}

// snapshotTime returns when a snapshot was begun. raft puts the time into the snapshot's name.
func snapshotTime(id string) time.Time {
	var term, index uint64
	var ms int64
	if _, err := fmt.Sscanf(id, "%d-%d-%d", &term, &index, &ms); err != nil {
		return time.Time{}
	}
	return time.UnixMilli(ms)
}

// show copies the contents of a state to out.
func (out *Inspection) show(s *state.State) {
	out.Index, out.Bytes, out.Roles = s.Index, s.Bytes(), rolesOf(s)
	for _, id := range s.Servers {
		known, _ := s.Member(id)
		m := memberOf(known)
		m.ID, m.Voter = id, slices.Contains(s.Voters, id)
		out.Members = append(out.Members, m)
	}
	slices.SortFunc(out.Members, func(a, b Member) int { return strings.Compare(a.Name+"\x00"+a.ID, b.Name+"\x00"+b.ID) })
	it := s.Records.Root().Iterator()
	for k, _, ok := it.Next(); ok; k, _, ok = it.Next() {
		out.Records = append(out.Records, keyspace.Plain(k))
	}
	for name := range state.Each(s.Items.ByName, nil) {
		out.Entries = append(out.Entries, strings.Replace(string(name), "\x00", "/", 1))
	}
}
