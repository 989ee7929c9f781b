package kv

import (
	"hash/maphash"
	"sync/atomic"

	"github.com/flotilla-ha/flotilla/internal/state"
)

// maxShared is the size up to which a copy of a value is kept for other watches.
const maxShared = 32 << 10

// copies keeps the copies of the newest values for the watches of this node. So a thousand watches
// of an entry make one copy of its value. The value in the state is not given away, because nobody
// may change that. The copies take 2 MiB at most, and keep as much of the state in memory.
type copies struct {
	seed  maphash.Seed
	slots [64]atomic.Pointer[copied]
}

// copied is an item with a copy of its value.
type copied struct {
	item  *state.Item
	value []byte
}

// of returns a copy of the value of the item with that name. Others may have the same copy.
func (c *copies) of(name string, i *state.Item) []byte {
	if len(i.Value) > maxShared {
		return append([]byte{}, i.Value...)
	}
	slot := &c.slots[(maphash.String(c.seed, name)+i.Version)%uint64(len(c.slots))]
	if has := slot.Load(); has != nil && has.item == i {
		return has.value
	}
	value := make([]byte, len(i.Value)) // without room for an append
	copy(value, i.Value)
	slot.Store(&copied{i, value})
	return value
}
