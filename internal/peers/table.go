package peers

import (
	"maps"
	"sync"
	"time"

	"github.com/flotilla-ha/flotilla/internal/applied"

	"github.com/flotilla-ha/flotilla/internal/slogbridge"
	"github.com/flotilla-ha/flotilla/internal/state"
)

// Table knows where nodes are: from their own greetings, else from what the cluster has recorded.
type Table struct {
	store *applied.Store

	Mu     sync.Mutex
	Heard  map[string]Greeted
	barred map[string]error // by boot number: why that process is not talked to
	ended  map[string]bool  // by boot number: another process of its node has answered at its address
	poke   chan struct{}    // closed and replaced at a change
	stored map[string]state.Member
	said   map[string]string // by node ID: how far it was, when it last greeted this node
	going  map[string]bool   // on their way out, by their own word
	over   map[string]uint64 // the newest session of a node that it said is over
}

// Greeted is what a node said of itself.
type Greeted struct {
	state.Member
	Boot     string
	recorded string // the address that the cluster had on record then
	Opened   uint64 // the session that it had on record then
	applied  uint64 // what the node said to have applied
	at       time.Time
}

const maxEnded = 1024 // processes that are remembered; those that still count are told again

func NewTable(store *applied.Store) *Table {
	return &Table{
		store: store, Heard: make(map[string]Greeted), barred: make(map[string]error), ended: make(map[string]bool), poke: make(chan struct{}), stored: make(map[string]state.Member), said: make(map[string]string),
		going: make(map[string]bool), over: make(map[string]uint64),
	}
}

// Observe notes what a process of a node says of itself, and how far it has applied the log.
func (b *Table) Observe(m state.Member, boot string, applied uint64) {
	s := b.store.State()
	on, _ := s.Member(m.ID)
	last, _ := s.Process(m.ID)
	b.Mu.Lock()
	defer b.Mu.Unlock()
	old, g := b.Heard[m.ID], Greeted{m, boot, on.Addr, last.Opened, applied, time.Now()}
	if state.StartOf(boot) < state.StartOf(old.Boot) && old.Opened == g.Opened { // said long ago, by a process that is dead
		return
	}
	if b.Heard[m.ID].Boot != boot {
		delete(b.going, m.ID) // that was another process
	}
	b.Heard[m.ID] = g
	if old.Member == g.Member && old.Boot == g.Boot && old.recorded == g.recorded {
		return
	}
	close(b.poke)
	b.poke = make(chan struct{})
}

// IsNews reports whether what a node says of how far it is differs from when it last said so.
func (b *Table) IsNews(id, said string) bool {
	b.Mu.Lock()
	defer b.Mu.Unlock()
	news := b.said[id] != said
	b.said[id] = said
	return news
}

// SessionOver notes that a node says that its session is over. Sessions are numbered by the log, so earlier ones are as well.
func (b *Table) SessionOver(id string, session uint64) {
	b.Mu.Lock()
	defer b.Mu.Unlock()
	b.over[id] = max(b.over[id], session)
}

// OverSession returns the newest session of a node that it said is over, 0 if there is none.
func (b *Table) OverSession(id string) uint64 {
	b.Mu.Lock()
	defer b.Mu.Unlock()
	return b.over[id]
}

// Learn notes what others say of a node, unless it has spoken for itself.
func (b *Table) Learn(m state.Member) {
	b.Mu.Lock()
	defer b.Mu.Unlock()
	b.stored[m.ID] = m
}

// SetLeaving notes whether a node is on its way out, and reports whether that is news.
func (b *Table) SetLeaving(id string, leaving bool) bool {
	b.Mu.Lock()
	defer b.Mu.Unlock()
	news := b.going[id] != leaving
	b.going[id] = leaving
	return news
}

// IsLeaving reports whether a node is on its way out.
func (b *Table) IsLeaving(id string) bool {
	b.Mu.Lock()
	defer b.Mu.Unlock()
	return b.going[id]
}

// Changed returns a channel that is closed when a node says something new.
func (b *Table) Changed() <-chan struct{} {
	b.Mu.Lock()
	defer b.Mu.Unlock()
	return b.poke
}

// Get returns what a node last said of itself.
func (b *Table) Get(id string) (state.Member, bool) {
	b.Mu.Lock()
	defer b.Mu.Unlock()
	g, ok := b.Heard[id]
	return g.Member, ok
}

// Name returns what people call a node; empty: nothing is known.
func (b *Table) Name(id string) string {
	if m, ok := b.store.State().Member(id); ok && m.Name != "" {
		return m.Name
	}
	b.Mu.Lock()
	defer b.Mu.Unlock()
	if g, ok := b.Heard[id]; ok {
		return g.Name
	}
	return b.stored[id].Name
}

// Latest returns the newest process of a node that is known, and whether the cluster has it on record:
// then it has had a session.
func (b *Table) Latest(id string) (p state.Process, recorded, ok bool) {
	on, has := b.store.State().Process(id)
	b.Mu.Lock()
	defer b.Mu.Unlock()
	g, ok := b.Heard[id]
	if ok && g.Boot != "" && (!has || g.Opened == on.Opened) {
		return state.Process{Incarnation: g.Boot, Addr: g.Addr}, has && g.Boot == on.Incarnation, true
	}
	return on, has, has
}

// Bar has a process not talked to any more. It reports whether that is new.
func (b *Table) Bar(boot string, why error) bool {
	b.Mu.Lock()
	defer b.Mu.Unlock()
	_, old := b.barred[boot]
	if len(b.barred) >= maxEnded {
		clear(b.barred)
	}
	b.barred[boot] = why
	return !old
}

// IsBarred returns why a process is not talked to, nil if it may be.
func (b *Table) IsBarred(boot string) error {
	b.Mu.Lock()
	defer b.Mu.Unlock()
	return b.barred[boot]
}

// End notes that a process has ended.
func (b *Table) End(boot string) {
	b.Mu.Lock()
	defer b.Mu.Unlock()
	if len(b.ended) >= maxEnded {
		clear(b.ended)
	}
	b.ended[boot] = true
}

// HasEnded reports whether a process is known to have ended.
func (b *Table) HasEnded(boot string) bool {
	b.Mu.Lock()
	defer b.Mu.Unlock()
	return b.ended[boot]
}

// Furthest returns the highest index that a node has said to have applied since then, of those that are
// there.
func (b *Table) Furthest(since time.Time, there func(id string) bool) (index uint64, node string) {
	b.Mu.Lock()
	defer b.Mu.Unlock()
	for id, g := range b.Heard {
		if g.applied > index && g.at.After(since) && there(id) {
			index, node = g.applied, id
		}
	}
	return index, node
}

// Addr returns the address to dial a node at.
func (b *Table) Addr(id string) (string, bool) {
	on, recorded := b.store.State().Member(id)
	b.Mu.Lock()
	defer b.Mu.Unlock()
	if g, ok := b.Heard[id]; ok && (!recorded || g.recorded == on.Addr) {
		return g.Addr, true
	}
	if recorded {
		return on.Addr, true
	}
	m, ok := b.stored[id]
	return m.Addr, ok
}

// All returns every node that anything is known of.
func (b *Table) All() map[string]state.Member {
	b.Mu.Lock()
	all := maps.Clone(b.stored)
	b.Mu.Unlock()
	it := b.store.State().Members.Root().Iterator()
	for _, m, ok := it.Next(); ok; _, m, ok = it.Next() {
		all[m.ID] = m
	}
	b.Mu.Lock()
	defer b.Mu.Unlock()
	for id, g := range b.Heard {
		all[id] = g.Member
	}
	return all
}

// NameOf returns what people call a node.
func (b *Table) NameOf(id string) string {
	if name := b.Name(id); name != "" {
		return name
	}
	return slogbridge.Short(id)
}
