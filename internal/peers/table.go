package peers

import (
	"maps"
	"sync"
	"time"

	"github.com/flotilla-ha/flotilla/internal/applied"
	"github.com/flotilla-ha/flotilla/internal/plaintext"
	"github.com/flotilla-ha/flotilla/internal/state"
)

// maxProcesses is how many barred processes, and how many ended ones, are remembered. When there
// are more the table forgets all of them: those that still matter are reported again.
const maxProcesses = 1024

// Table is the peer table of a node. Make one with NewTable. Its methods are safe for concurrent
// use.
type Table struct {
	store *applied.Store

	mu       sync.Mutex
	greeted  map[string]greeted      // by node ID
	learned  map[string]state.Member // by node ID
	barred   map[string]error        // by incarnation: why this node does not talk to that process
	ended    map[string]bool         // by incarnation: that process is known to have ended
	changed  chan struct{}           // closed and replaced at a change
	progress map[string]string       // by node ID: what IsNews was told last
	leaving  map[string]bool         // by node ID
	over     map[string]uint64       // by node ID: its newest session that is over by its own word
}

// Process is what a process of a node says of itself, besides what it says of the node.
type Process struct {
	Incarnation string // names the process
	Supports    uint64 // the newest cluster version that its program supports
	Applied     uint64 // the index that it has applied
}

// greeted is what a node said of itself.
type greeted struct {
	state.Member
	process  Process
	recorded string // the address that the state had for the node then
	opened   uint64 // the session that the state had for the node then
	at       time.Time
}

// NewTable returns an empty table over the state in store.
func NewTable(store *applied.Store) *Table {
	return &Table{
		store:    store,
		greeted:  make(map[string]greeted),
		learned:  make(map[string]state.Member),
		barred:   make(map[string]error),
		ended:    make(map[string]bool),
		changed:  make(chan struct{}),
		progress: make(map[string]string),
		leaving:  make(map[string]bool),
		over:     make(map[string]uint64),
	}
}

// Observe takes what a process says of its node, and of itself.
func (t *Table) Observe(m state.Member, p Process) {
	s := t.store.State()
	on, _ := s.Member(m.ID)
	last, _ := s.Process(m.ID)
	t.mu.Lock()
	defer t.mu.Unlock()
	old, g := t.greeted[m.ID], greeted{m, p, on.Addr, last.Opened, time.Now()}
	if state.StartOf(p.Incarnation) < state.StartOf(old.process.Incarnation) && old.opened == g.opened {
		return // an earlier process said it, and the message was late
	}
	if old.process.Incarnation != p.Incarnation {
		delete(t.leaving, m.ID) // that was another process
	}
	t.greeted[m.ID] = g
	if old.Member == g.Member && old.process.Incarnation == p.Incarnation && old.recorded == g.recorded {
		return
	}
	close(t.changed)
	t.changed = make(chan struct{})
}

// IsNews reports whether a node says something else of its progress than the last time.
func (t *Table) IsNews(id, said string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	news := t.progress[id] != said
	t.progress[id] = said
	return news
}

// SessionOver takes a node's word that its session is over. Sessions are numbered by the log, so
// earlier ones are over too.
func (t *Table) SessionOver(id string, session uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.over[id] = max(t.over[id], session)
}

// OverSession returns the newest session of a node that the node said is over, 0 if there is none.
func (t *Table) OverSession(id string) uint64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.over[id]
}

// Learn takes what others say of a node. It counts until the node speaks for itself.
func (t *Table) Learn(m state.Member) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.learned[m.ID] = m
}

// SetLeaving says whether a node is shutting down. It reports whether that is news. Another
// process of the node is taken to stay.
func (t *Table) SetLeaving(id string, leaving bool) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	news := t.leaving[id] != leaving
	t.leaving[id] = leaving
	return news
}

// IsLeaving reports whether a node said that it is shutting down.
func (t *Table) IsLeaving(id string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.leaving[id]
}

// Changed returns a channel that is closed when a node says something new of itself.
func (t *Table) Changed() <-chan struct{} {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.changed
}

// Get returns what a node last said of itself.
func (t *Table) Get(id string) (state.Member, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	g, ok := t.greeted[id]
	return g.Member, ok
}

// Supports returns the newest cluster version that a process of a node supports, 0 if it has not
// said so. Another process of the node may be another program.
func (t *Table) Supports(id, incarnation string) uint64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	if p := t.greeted[id].process; p.Incarnation == incarnation {
		return p.Supports
	}
	return 0
}

// Name returns the name that people gave a node, empty if it is not known.
func (t *Table) Name(id string) string {
	if m, ok := t.store.State().Member(id); ok && m.Name != "" {
		return m.Name
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if g, ok := t.greeted[id]; ok {
		return g.Name
	}
	return t.learned[id].Name
}

// Latest returns the newest process of a node that is known. It is recorded if the state has it:
// then it has had a session.
func (t *Table) Latest(id string) (p state.Process, recorded, ok bool) {
	on, has := t.store.State().Process(id)
	t.mu.Lock()
	defer t.mu.Unlock()
	g, ok := t.greeted[id]
	if said := g.process.Incarnation; ok && said != "" && (!has || g.opened == on.Opened) {
		return state.Process{Incarnation: said, Addr: g.Addr}, has && said == on.Incarnation, true
	}
	return on, has, has
}

// Bar keeps this node from talking to a process. It reports whether that is new.
func (t *Table) Bar(incarnation string, why error) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	_, old := t.barred[incarnation]
	if len(t.barred) >= maxProcesses {
		clear(t.barred)
	}
	t.barred[incarnation] = why
	return !old
}

// IsBarred returns why this node does not talk to a process, nil if it does.
func (t *Table) IsBarred(incarnation string) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.barred[incarnation]
}

// End takes that a process has ended.
func (t *Table) End(incarnation string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.ended) >= maxProcesses {
		clear(t.ended)
	}
	t.ended[incarnation] = true
}

// HasEnded reports whether a process is known to have ended.
func (t *Table) HasEnded(incarnation string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.ended[incarnation]
}

// Furthest returns the highest index that a node says it has applied, and that node. Only greetings
// after since count, and only nodes of which there says yes.
func (t *Table) Furthest(since time.Time, there func(id string) bool) (index uint64, node string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for id, g := range t.greeted {
		if g.process.Applied > index && g.at.After(since) && there(id) {
			index, node = g.process.Applied, id
		}
	}
	return index, node
}

// Addr returns the address to dial a node at.
func (t *Table) Addr(id string) (string, bool) {
	on, recorded := t.store.State().Member(id)
	t.mu.Lock()
	defer t.mu.Unlock()
	if g, ok := t.greeted[id]; ok && (!recorded || g.recorded == on.Addr) {
		return g.Addr, true
	}
	if recorded {
		return on.Addr, true
	}
	m, ok := t.learned[id]
	return m.Addr, ok
}

// All returns everything that is known of nodes, by node ID. The map is the caller's.
func (t *Table) All() map[string]state.Member {
	t.mu.Lock()
	all := maps.Clone(t.learned)
	t.mu.Unlock()
	it := t.store.State().Members.Root().Iterator()
	for _, m, ok := it.Next(); ok; _, m, ok = it.Next() {
		all[m.ID] = m
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	for id, g := range t.greeted {
		all[id] = g.Member
	}
	return all
}

// NameOf returns the name of a node, or the beginning of its ID if the name is not known.
func (t *Table) NameOf(id string) string {
	if name := t.Name(id); name != "" {
		return name
	}
	return plaintext.ShortID(id)
}
