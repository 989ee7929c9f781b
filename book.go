package flotilla

import (
	"fmt"
	"maps"
	"strconv"
	"sync"
)

// book knows where nodes are: from their own greetings, else from what the cluster has recorded.
type book struct {
	fsm *fsm

	mu     sync.Mutex
	heard  map[string]greeted
	poke   chan struct{} // closed and replaced at a change
	stored map[string]Member
	said   map[string]string // by node ID: how far it was, when it last greeted this node
	going  map[string]bool   // on their way out, by their own word
	over   map[string]uint64 // the newest session of a node that it said is over
}

// greeted is what a node said of itself.
type greeted struct {
	Member
	boot     string
	recorded string // what the cluster had on record then
}

func newBook(f *fsm, stored map[string]Member) *book {
	b := &book{
		fsm: f, heard: make(map[string]greeted), poke: make(chan struct{}), stored: make(map[string]Member), said: make(map[string]string),
		going: make(map[string]bool), over: make(map[string]uint64),
	}
	maps.Copy(b.stored, stored)
	return b
}

// hear notes what a node says of itself.
func (b *book) hear(m Member, boot string) {
	on, _ := b.fsm.state().member(m.ID)
	b.mu.Lock()
	defer b.mu.Unlock()
	g := greeted{m, boot, on.Addr}
	if b.heard[m.ID] == g || startOf(boot) < startOf(b.heard[m.ID].boot) { // said long ago, by a process that is dead
		return
	}
	if b.heard[m.ID].boot != boot {
		delete(b.going, m.ID) // that was another process
	}
	b.heard[m.ID] = g
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
func (b *book) learn(m Member) {
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
func (b *book) get(id string) (Member, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	g, ok := b.heard[id]
	return g.Member, ok
}

// name returns what people call a node; empty: nothing is known.
func (b *book) name(id string) string {
	if m, ok := b.fsm.state().member(id); ok && m.Name != "" {
		return m.Name
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if g, ok := b.heard[id]; ok {
		return g.Name
	}
	return b.stored[id].Name
}

// process returns the boot number that a node last gave.
func (b *book) process(id string) string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.heard[id].boot
}

// addr returns the address to dial a node at.
func (b *book) addr(id string) (string, bool) {
	on, recorded := b.fsm.state().member(id)
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
func (b *book) all() map[string]Member {
	b.mu.Lock()
	all := maps.Clone(b.stored)
	b.mu.Unlock()
	it := b.fsm.state().members.Root().Iterator()
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

// startOf returns which process of its node a name is of.
func startOf(boot string) uint64 {
	n, err := strconv.ParseUint(boot[:min(16, len(boot))], 16, 64)
	if err != nil {
		return 0
	}
	return n
}
