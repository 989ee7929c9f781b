package replica

import (
	"errors"
	"sync"
	"time"

	"github.com/flotilla-ha/flotilla/internal/meter"
	"github.com/flotilla-ha/flotilla/internal/state"
)

// Meters count what a replica does. The zero value is ready.
type Meters struct {
	// LeaderChanges is how often this node has learned of another leader, or of the same one after it
	// knew of none. The first leader of the process is no change.
	LeaderChanges meter.Counter

	// Election is how long this node knew of no leader, counted when it learns of one. The time before
	// the first leader of the process does not count, nor does that in which raft did not run here.
	Election meter.Histogram

	// WritesOK is how long the writes of this node took that did what they say.
	WritesOK meter.Histogram

	// WritesRefused is how long the writes took that did nothing and will do nothing: the answer of
	// the state is another than yes, as without room or without the role; or the session has ended.
	WritesRefused meter.Histogram

	// WritesFailed is how long the writes took that got no answer, as without a leader, and those
	// whose callers gave up before. They may still take effect.
	WritesFailed meter.Histogram

	// ReadersWait is how long batches of writes waited at this node as leader, from when it had
	// applied them until every session had, or the attempt was given up.
	ReadersWait meter.Histogram
}

// wrote counts a write of this node.
func (m *Meters) wrote(began time.Time, code state.Code, err error) {
	h := &m.WritesOK
	switch {
	case errors.Is(err, ErrEnded), isVersion(err):
		h = &m.WritesRefused
	case err != nil:
		h = &m.WritesFailed
	case code != state.CodeOK && code != state.CodeQueued:
		h = &m.WritesRefused
	}
	observe(h, began)
}

func isVersion(err error) bool {
	_, ok := errors.AsType[*state.VersionError](err)
	return ok
}

// observe counts the time since began.
func observe(h *meter.Histogram, began time.Time) { h.Observe(time.Since(began)) }

// leaders notices when the leader changes, as raft on this node sees it. Its methods are safe for
// concurrent use.
type leaders struct {
	meters  *Meters
	changed func(id string, without time.Duration) // see Up.LeaderChanged

	mu    sync.Mutex
	last  string    // the last leader; empty: there was none
	known bool      // it leads now
	lost  time.Time // when it was lost; zero: it leads now, or raft has not run since
}

// observe takes what raft says about the leader. Empty: there is none.
func (l *leaders) observe(leader string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case leader == "" && l.known:
		l.known, l.lost = false, time.Now()
	case leader != "":
		without := time.Duration(0)
		if !l.lost.IsZero() {
			without = time.Since(l.lost)
			l.meters.Election.Observe(without)
		}
		if l.last != leader || !l.lost.IsZero() {
			l.changed(leader, without)
		}
		if l.last != "" && (l.last != leader || !l.lost.IsZero()) {
			l.meters.LeaderChanges.Inc()
		}
		l.last, l.known, l.lost = leader, true, time.Time{}
	}
}

// pause says that raft runs no more. How long it knows of no leader says nothing about elections.
func (l *leaders) pause() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.known, l.lost = false, time.Time{}
}

// LogSync returns how long the disk took to make batches of the log durable, one sync each. A node
// without a directory has made none.
func (r *Replica) LogSync() meter.Observed {
	if r.Dir == nil {
		return new(meter.Histogram).Load()
	}
	return r.Dir.Meters.LogSync.Load()
}

// SnapshotTaken returns when the newest snapshot on the disk was begun, by the wall clock of this
// node, also if an earlier process has taken it. It is zero if there is none.
func (r *Replica) SnapshotTaken() time.Time {
	if r.Dir == nil {
		return time.Time{}
	}
	return r.Dir.SnapshotTaken()
}

// LogBytes returns how many bytes the entries of the log take, and those of them that are behind
// the newest snapshot. Snapshots bounds both. It does not look at the disk.
func (s *Snapshots) LogBytes() (all, behind uint64) {
	log := s.chain.current.Load()
	if log == nil {
		return 0, 0
	}
	return log.Since(0), log.Since(s.newest.Load())
}

// Lag is how far a member is behind the leader.
type Lag struct {
	Node    string // its node ID
	Entries uint64 // that this leader has in its log, and the member has not confirmed
}

// Lags returns how far the other members are behind this node, if it leads; else nil. A member that
// has confirmed no entry in this term yet is left out.
func (r *Replica) Lags() (all []Lag) {
	l := r.Leading.Load()
	if l == nil {
		return nil
	}
	last, transport := l.Raft.LastIndex(), r.Port.Transport()
	for _, id := range r.Others() {
		if index, _ := transport.Match(id, l.Term); index > 0 {
			all = append(all, Lag{id, last - min(index, last)})
		}
	}
	return all
}
