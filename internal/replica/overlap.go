package replica

import (
	"slices"

	"github.com/hashicorp/raft"

	"github.com/flotilla-ha/flotilla/internal/durable"
)

// overlapping is the log of a node whose disk and network work at the same time while it leads.
// raft's StoreLogs then returns before the entries are on the disk, and raft sends them. raft
// counts the leader as one that has them, so the transport hands a follower's success to raft only
// when this node's disk has them too (rafttransport.Node.Durable). What is committed is thus on the
// disks of a majority that includes the leader. Ongaro describes it in his thesis (2014), section
// 10.2.1.
//
// These cases must wait for the disk:
//
//   - The leader is the only voter. It waits for no follower, because members that do not vote do
//     not count.
//   - The entry is a configuration. With it another number of voters may begin.
//   - The node does not lead: a follower's answer says that its disk has the entries.
//
// A leader that is deposed meanwhile learns of a newer term first. The log then waits for the disk
// before it takes the term (raftlog.Log.SetUint64). So no answer in the new term relies on entries
// that are not written. If it steps down without a newer term, nobody can ask it to answer in its
// own: only it was elected in that one.
//
// A leader that dies before its disk has an entry has lost what it has sent to others. That is as
// if it had never got the entry from a later leader: it has promised nothing.
type overlapping struct {
	*durable.Log
	group  *Group
	opener *Opener
}

// StoreLog implements raft.LogStore.
func (l overlapping) StoreLog(e *raft.Log) error { return l.StoreLogs([]*raft.Log{e}) }

// StoreLogs implements raft.LogStore. raft calls it on its main goroutine.
func (l overlapping) StoreLogs(entries []*raft.Log) error {
	if l.group.leadsOthers() && !slices.ContainsFunc(entries, isConfiguration) {
		l.Queue(entries)
		return nil
	}
	if keys := l.group.store.State().Keys; keys != nil {
		defer l.opener.Ahead(keys, entries)()
	}
	return l.Log.StoreLogs(entries)
}

func isConfiguration(e *raft.Log) bool { return e.Type == raft.LogConfiguration }

// leadsOthers reports whether this node leads, and its vote alone is no majority. The answer is
// certain on raft's main goroutine only.
func (g *Group) leadsOthers() bool {
	r := g.Raft.Load()
	if r == nil || r.State() != raft.Leader {
		return false
	}
	voters := 0
	for _, srv := range g.Servers() {
		if srv.Suffrage == raft.Voter {
			voters++
		}
	}
	return voters > 1
}
