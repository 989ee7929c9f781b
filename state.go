package flotilla

import (
	"bytes"
	"slices"
	"strings"

	iradix "github.com/hashicorp/go-immutable-radix/v2"

	"github.com/flotilla-ha/flotilla/internal/seal"
)

// state is all that the cluster agrees on, after the entry at index. It is immutable: apply returns another one, which
// shares what has not changed. So a reader takes no lock, and a snapshot is a pointer.
type state struct {
	index    uint64
	cluster  string        // identity of the cluster; empty before the keyring's entry
	keys     *seal.Keyring // nil before the keyring's entry
	wrapped  []byte        // the keyring as the log and snapshots have it
	records  *iradix.Tree[*record]
	bytes    int64 // of all names and values, and of the names of locks for each claim
	locks    *iradix.Tree[*lock]
	members  *iradix.Tree[Member]
	sessions *iradix.Tree[*session]
	servers  []string // node IDs of raft's configuration, sorted
}

// record is one stored value. Its slice is never written to.
type record struct {
	value    []byte
	modified int64  // Unix nanoseconds of the writer's clock
	index    uint64 // of the entry that stored it
}

// session is one life of a node, as far as the cluster has heard of it.
type session struct {
	number  uint64 // index of the entry that opened it
	boot    string // made up by the process
	acked   uint64
	answers []answer // to commands after acked, by seq
}

// lock is a queue of claims; the first one holds it.
type lock struct{ queue []claim }

// claim is a place in a lock's queue.
type claim struct {
	node    string
	session uint64
	seq     uint64 // of the command that made it
	index   uint64 // of the entry that granted it, 0 while it waits
}

func newState() *state {
	return &state{
		records:  iradix.New[*record](),
		locks:    iradix.New[*lock](),
		members:  iradix.New[Member](),
		sessions: iradix.New[*session](),
	}
}

// treeKey is the form of a key in the tree: with a zero byte for a slash, keys sort as a walk through directories does.
func treeKey(key string) []byte {
	k := []byte(key)
	for i, c := range k {
		if c == '/' {
			k[i] = 0
		}
	}
	return k
}

// plainKey is the inverse of treeKey.
func plainKey(k []byte) string { return string(bytes.ReplaceAll(k, []byte{0}, []byte{'/'})) }

// session returns the session of a node, nil if it has none.
func (s *state) session(node string) *session {
	v, _ := s.sessions.Get([]byte(node))
	return v
}

// member returns what is known of a member.
func (s *state) member(id string) (Member, bool) { return s.members.Get([]byte(id)) }

// lock returns the queue of a lock.
func (s *state) lock(name string) []claim {
	if l, ok := s.locks.Get([]byte(name)); ok {
		return l.queue
	}
	return nil
}

// answer returns what was said to a command of a session, and whether it has been applied.
func (s *state) answer(node string, number, seq uint64) (answer, bool) {
	ses := s.session(node)
	if ses == nil || ses.number != number {
		return answer{seq: seq, index: s.index, code: codeEnded}, ses != nil && ses.number > number || ses == nil && s.index > number
	}
	if seq <= ses.acked {
		return answer{seq: seq, index: s.index}, true // given up, or answered long ago
	}
	i, ok := slices.BinarySearchFunc(ses.answers, seq, func(a answer, seq uint64) int { return int(int64(a.seq - seq)) })
	if !ok {
		return answer{}, false
	}
	return ses.answers[i], true
}

// apply returns the state after the command at index. It is a pure function: every node computes the same.
func (s *state) apply(index uint64, c *command) (*state, answer) {
	n := *s
	n.index = index
	out := answer{seq: c.seq, index: index}
	if c.session == 0 {
		out.code = n.change(index, c)
		return &n, out
	}
	ses := n.session(c.node)
	if ses == nil || ses.number != c.session {
		out.code = codeEnded
		return &n, out
	}
	if c.seq <= ses.acked {
		return &n, out // the node has had the answer and asks no more
	}
	if a, ok := s.answer(c.node, c.session, c.seq); ok {
		return &n, a
	}
	out.code = n.change(index, c)
	acked := max(ses.acked, c.acked)
	kept := slices.DeleteFunc(slices.Clone(ses.answers), func(a answer) bool { return a.seq <= acked })
	at, _ := slices.BinarySearchFunc(kept, c.seq, func(a answer, seq uint64) int { return int(int64(a.seq - seq)) })
	kept = slices.Insert(kept, at, out)
	n.sessions, _, _ = n.sessions.Insert([]byte(c.node), &session{number: ses.number, boot: ses.boot, acked: acked, answers: kept})
	return &n, out
}

// change does what the command says to s, which is still private to apply.
func (s *state) change(index uint64, c *command) code {
	switch c.op {
	case opOpen:
		if ses := s.session(c.node); ses != nil {
			if ses.boot == c.key {
				return codeOK
			}
			s.endSession(index, c.node, ses.number)
		}
		s.sessions, _, _ = s.sessions.Insert([]byte(c.node), &session{number: index, boot: c.key})
	case opEnd:
		s.endSession(index, c.target, c.number)
	case opMember:
		s.members, _, _ = s.members.Insert([]byte(c.target), Member{ID: c.target, Name: c.key, Addr: string(c.value)})
	case opStore:
		return s.store(index, c)
	case opDelete:
		s.remove(c.key)
	case opLock:
		return s.claim(index, c)
	case opUnlock:
		return s.release(index, c.key, func(q claim) bool {
			return q.node == c.node && q.session == c.session && q.seq == c.number
		})
	}
	return codeOK
}

func (s *state) store(index uint64, c *command) code {
	if s.isDir(c.key) {
		return codeIsDir
	}
	for i := strings.IndexByte(c.key, '/'); i >= 0; {
		if _, ok := s.records.Get(treeKey(c.key[:i])); ok {
			return codeNotDir
		}
		next := strings.IndexByte(c.key[i+1:], '/')
		if next < 0 {
			break
		}
		i += 1 + next
	}
	grows := int64(len(c.key) + len(c.value))
	if old, ok := s.records.Get(treeKey(c.key)); ok {
		grows = int64(len(c.value) - len(old.value))
	}
	if !s.hasRoom(grows, c.number) {
		return codeFull
	}
	s.bytes += grows
	s.records, _, _ = s.records.Insert(treeKey(c.key), &record{value: c.value, modified: c.time, index: index})
	return codeOK
}

// hasRoom reports whether the state may grow. The limit comes with the command, so every node finds the same.
func (s *state) hasRoom(grows int64, limit uint64) bool {
	return grows <= 0 || s.bytes+grows <= int64(limit)
}

// isDir reports whether there are keys below key. The empty key is above all.
func (s *state) isDir(key string) bool {
	it := s.records.Root().Iterator()
	it.SeekPrefix(below(key))
	_, _, ok := it.Next()
	return ok
}

// below is the tree's prefix of all that is below key.
func below(key string) []byte {
	if key == "" {
		return nil
	}
	return append(treeKey(key), 0)
}

func (s *state) remove(key string) {
	txn := s.records.Txn()
	if key != "" {
		if old, ok := txn.Delete(treeKey(key)); ok {
			s.bytes -= int64(len(key) + len(old.value))
		}
	}
	it := s.records.Root().Iterator()
	it.SeekPrefix(below(key))
	for k, r, ok := it.Next(); ok; k, r, ok = it.Next() {
		s.bytes -= int64(len(k) + len(r.value))
	}
	txn.DeletePrefix(below(key))
	s.records = txn.CommitOnly()
}

func (s *state) claim(index uint64, c *command) code {
	queue := s.lock(c.key)
	if len(queue) > 0 && !c.flag {
		return codeHeld
	}
	if !s.hasRoom(int64(len(c.key)), c.number) {
		return codeFull
	}
	s.bytes += int64(len(c.key))
	mine := claim{node: c.node, session: c.session, seq: c.seq}
	if len(queue) == 0 {
		mine.index = index
	}
	s.locks, _, _ = s.locks.Insert([]byte(c.key), &lock{queue: append(slices.Clone(queue), mine)})
	if len(queue) > 0 {
		return codeQueued
	}
	return codeOK
}

// release takes the claims that match out of a lock's queue and grants it to the first one left.
func (s *state) release(index uint64, name string, match func(claim) bool) code {
	queue := s.lock(name)
	rest := slices.DeleteFunc(slices.Clone(queue), match)
	if len(rest) == len(queue) {
		return codeNotHeld
	}
	s.bytes -= int64(len(name)) * int64(len(queue)-len(rest))
	if len(rest) == 0 {
		s.locks, _, _ = s.locks.Delete([]byte(name))
		return codeOK
	}
	if rest[0].index == 0 {
		rest[0].index = index
	}
	s.locks, _, _ = s.locks.Insert([]byte(name), &lock{queue: rest})
	return codeOK
}

// endSession frees, in this one step, all that the session holds.
func (s *state) endSession(index uint64, node string, number uint64) {
	ses := s.session(node)
	if ses == nil || ses.number != number {
		return
	}
	s.sessions, _, _ = s.sessions.Delete([]byte(node))
	it := s.locks.Root().Iterator()
	for k, _, ok := it.Next(); ok; k, _, ok = it.Next() {
		s.release(index, string(k), func(q claim) bool { return q.node == node && q.session == number })
	}
}

// configure returns the state after a change of raft's configuration: what a server that is gone had is freed.
func (s *state) configure(index uint64, servers []string) *state {
	n := *s
	n.index = index
	slices.Sort(servers)
	for _, id := range s.servers {
		if slices.Contains(servers, id) {
			continue
		}
		if ses := n.session(id); ses != nil {
			n.endSession(index, id, ses.number)
		}
		n.members, _, _ = n.members.Delete([]byte(id))
	}
	n.servers = servers
	return &n
}

// list returns the keys below dir in the order of a walk: with directories, if recursive with all that is below them.
func (s *state) list(dir string, recursive bool) []string {
	prefix := below(dir)
	it := s.records.Root().Iterator()
	it.SeekPrefix(prefix)
	if !recursive {
		return s.children(prefix)
	}
	var keys []string
	var above []byte // the directory of the last key
	for k, _, ok := it.Next(); ok; k, _, ok = it.Next() {
		for i := len(prefix); i < len(k); i++ {
			if k[i] == 0 && !bytes.HasPrefix(above, k[:i+1]) {
				keys = append(keys, plainKey(k[:i]))
			}
		}
		above = k[:bytes.LastIndexByte(k, 0)+1]
		keys = append(keys, plainKey(k))
	}
	return keys
}

// children lists one level and steps over what is below it, so that its cost is that of the level.
func (s *state) children(prefix []byte) []string {
	var keys []string
	from := slices.Clone(prefix)
	for {
		it := s.records.Root().Iterator()
		it.SeekLowerBound(from)
		k, _, ok := it.Next()
		if !ok || !bytes.HasPrefix(k, prefix) {
			return keys
		}
		end := bytes.IndexByte(k[len(prefix):], 0)
		if end < 0 {
			end = len(k) - len(prefix)
		}
		child := k[:len(prefix)+end]
		keys = append(keys, plainKey(child))
		from = append(slices.Clone(child), 1) // the first key after child and all that is below it
	}
}
