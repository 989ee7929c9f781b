package flotilla

import (
	"fmt"
	"maps"
	"sync"
	"time"

	"github.com/flotilla-ha/flotilla/internal/applied"

	"github.com/flotilla-ha/flotilla/internal/slogbridge"
	"github.com/flotilla-ha/flotilla/internal/state"
)

// book knows where nodes are: from their own greetings, else from what the cluster has recorded.
type book struct {
	store *applied.Store

	mu     sync.Mutex
	heard  map[string]greeted
	barred map[string]error // by boot number: why that process is not talked to
	ended  map[string]bool  // by boot number: another process of its node has answered at its address
	poke   chan struct{}    // closed and replaced at a change
	stored map[string]state.Member
	said   map[string]string // by node ID: how far it was, when it last greeted this node
	going  map[string]bool   // on their way out, by their own word
	over   map[string]uint64 // the newest session of a node that it said is over
}

// greeted is what a node said of itself.
type greeted struct {
	state.Member
	boot     string
	recorded string // the address that the cluster had on record then
	opened   uint64 // the session that it had on record then
	applied  uint64 // what the node said to have applied
	at       time.Time
}

const maxEnded = 1024 // processes that are remembered; those that still count are told again

func newBook(store *applied.Store) *book {
	return &book{
		store: store, heard: make(map[string]greeted), barred: make(map[string]error), ended: make(map[string]bool), poke: make(chan struct{}), stored: make(map[string]state.Member), said: make(map[string]string),
		going: make(map[string]bool), over: make(map[string]uint64),
	}
}

// hear notes what a process of a node says of itself, and how far it has applied the log.
func (b *book) hear(m state.Member, boot string, applied uint64) {
	s := b.store.State()
	on, _ := s.Member(m.ID)
	last, _ := s.Process(m.ID)
	b.mu.Lock()
	defer b.mu.Unlock()
	old, g := b.heard[m.ID], greeted{m, boot, on.Addr, last.Opened, applied, time.Now()}
	if state.StartOf(boot) < state.StartOf(old.boot) && old.opened == g.opened { // said long ago, by a process that is dead
		return
	}
	if b.heard[m.ID].boot != boot {
		delete(b.going, m.ID) // that was another process
	}
	b.heard[m.ID] = g
	if old.Member == g.Member && old.boot == g.boot && old.recorded == g.recorded {
		return
	}
	close(b.poke)
	b.poke = make(chan struct{})
}

// isNews reports whether a node that greets this one has got further than when it last did, on its way into a cluster.
func (b *book) isNews(g *greeting) bool {
	said := fmt.Sprint(g.Boot, g.Addr, g.Cluster, g.InRaft, g.Leader != "", len(g.Committed), len(g.Void))
	if g.Formation != nil {
		said += g.Formation.Cluster + string(g.Formation.Step)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	news := b.said[g.ID] != said
	b.said[g.ID] = said
	return news
}

// lose notes that a node says that its session is over. Sessions are numbered by the log, so earlier ones are as well.
func (b *book) lose(id string, session uint64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.over[id] = max(b.over[id], session)
}

// lost returns the newest session of a node that it said is over, 0 if there is none.
func (b *book) lost(id string) uint64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.over[id]
}

// learn notes what others say of a node, unless it has spoken for itself.
func (b *book) learn(m state.Member) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.stored[m.ID] = m
}

// leave notes whether a node is on its way out, and reports whether that is news.
func (b *book) leave(id string, leaving bool) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	news := b.going[id] != leaving
	b.going[id] = leaving
	return news
}

// leaves reports whether a node is on its way out.
func (b *book) leaves(id string) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.going[id]
}

// changed returns a channel that is closed when a node says something new.
func (b *book) changed() <-chan struct{} {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.poke
}

// get returns what a node last said of itself.
func (b *book) get(id string) (state.Member, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	g, ok := b.heard[id]
	return g.Member, ok
}

// name returns what people call a node; empty: nothing is known.
func (b *book) name(id string) string {
	if m, ok := b.store.State().Member(id); ok && m.Name != "" {
		return m.Name
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if g, ok := b.heard[id]; ok {
		return g.Name
	}
	return b.stored[id].Name
}

// latest returns the newest process of a node that is known, and whether the cluster has it on record:
// then it has had a session.
func (b *book) latest(id string) (p state.Process, recorded, ok bool) {
	on, has := b.store.State().Process(id)
	b.mu.Lock()
	defer b.mu.Unlock()
	g, ok := b.heard[id]
	if ok && g.boot != "" && (!has || g.opened == on.Opened) {
		return state.Process{Incarnation: g.boot, Addr: g.Addr}, has && g.boot == on.Incarnation, true
	}
	return on, has, has
}

// bar has a process not talked to any more. It reports whether that is new.
func (b *book) bar(boot string, why error) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	_, old := b.barred[boot]
	if len(b.barred) >= maxEnded {
		clear(b.barred)
	}
	b.barred[boot] = why
	return !old
}

// isBarred returns why a process is not talked to, nil if it may be.
func (b *book) isBarred(boot string) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.barred[boot]
}

// end notes that a process has ended.
func (b *book) end(boot string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.ended) >= maxEnded {
		clear(b.ended)
	}
	b.ended[boot] = true
}

// hasEnded reports whether a process is known to have ended.
func (b *book) hasEnded(boot string) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.ended[boot]
}

// furthest returns the highest index that a node has said to have applied since then, of those that are
// there.
func (b *book) furthest(since time.Time, there func(id string) bool) (index uint64, node string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for id, g := range b.heard {
		if g.applied > index && g.at.After(since) && there(id) {
			index, node = g.applied, id
		}
	}
	return index, node
}

// addr returns the address to dial a node at.
func (b *book) addr(id string) (string, bool) {
	on, recorded := b.store.State().Member(id)
	b.mu.Lock()
	defer b.mu.Unlock()
	if g, ok := b.heard[id]; ok && (!recorded || g.recorded == on.Addr) {
		return g.Addr, true
	}
	if recorded {
		return on.Addr, true
	}
	m, ok := b.stored[id]
	return m.Addr, ok
}

// all returns every node that anything is known of.
func (b *book) all() map[string]state.Member {
	b.mu.Lock()
	all := maps.Clone(b.stored)
	b.mu.Unlock()
	it := b.store.State().Members.Root().Iterator()
	for _, m, ok := it.Next(); ok; _, m, ok = it.Next() {
		all[m.ID] = m
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	for id, g := range b.heard {
		all[id] = g.Member
	}
	return all
}

// newBoot makes up the name of a process, the node's starts-th.
func newBoot(starts uint64) string { return fmt.Sprintf("%016x%s", starts, newID()) }

// nameOf returns what people call a node.
func (b *book) nameOf(id string) string {
	if name := b.name(id); name != "" {
		return name
	}
	return slogbridge.Short(id)
}
