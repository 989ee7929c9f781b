package replica

import (
	"bytes"
	"sync"
	"sync/atomic"

	"github.com/hashicorp/raft"

	"github.com/flotilla-ha/flotilla/internal/seal"
	"github.com/flotilla-ha/flotilla/internal/state"
)

// openedBytes is how much an Opener keeps, counted in bytes of entries.
const openedBytes = 4 << 20

// Opener opens sealed commands and keeps the results until they are applied, because opening costs
// more than all the rest of applying. A leader checks a command before it applies it, a node
// applies what it has sealed itself, and a follower has time while its disk writes. The zero value
// is ready. The methods are safe for concurrent use.
type Opener struct {
	mu     sync.Mutex
	size   int                  // of the entries in opened
	opened map[entryHead]opened // commands that are yet to be applied, and some that never will be
}

// entryHead is the beginning of an entry. The random nonce is in it.
type entryHead [2 + seal.Overhead]byte

// opened is an entry, and the command in it.
type opened struct{ entry, plain []byte }

// Seal returns the entry of a command that this node will apply.
func (o *Opener) Seal(keys *seal.Keyring, c *state.Command) []byte {
	plain := c.Encode()
	entry := state.SealEntry(keys, plain)
	o.keep(opened{entry, plain}, nil)
	return entry
}

// Open opens an entry that this node will apply, and keeps the result.
func (o *Opener) Open(keys *seal.Keyring, entry []byte) (state.Command, error) {
	plain, err := state.OpenEntry(keys, entry)
	if err != nil {
		return state.Command{}, err
	}
	o.keep(opened{entry, plain}, nil)
	return state.DecodeCommand(plain)
}

// Take opens an entry that this node applies now.
func (o *Opener) Take(keys *seal.Keyring, entry []byte) (c state.Command, err error) {
	plain := o.take(entry)
	if plain == nil {
		if plain, err = state.OpenEntry(keys, entry); err != nil {
			return c, err
		}
	}
	return state.DecodeCommand(plain)
}

// Ahead opens entries on a goroutine of its own until stop is called. It leaves to Take what it
// does not come to, or cannot open.
func (o *Opener) Ahead(keys *seal.Keyring, entries []*raft.Log) (stop func()) {
	var stopped atomic.Bool
	go func() {
		for _, e := range entries {
			if stopped.Load() {
				return
			}
			if e.Type != raft.LogCommand || o.has(e.Data) {
				continue
			}
			if plain, err := state.OpenEntry(keys, e.Data); err == nil {
				o.keep(opened{e.Data, plain}, &stopped)
			}
		}
	}()
	return func() {
		o.mu.Lock()
		defer o.mu.Unlock()
		stopped.Store(true)
	}
}

// keep keeps a command until it is taken, unless stopped is true.
func (o *Opener) keep(c opened, stopped *atomic.Bool) {
	head, ok := headOf(c.entry)
	o.mu.Lock()
	defer o.mu.Unlock()
	if !ok || stopped != nil && stopped.Load() {
		return
	}
	if o.opened == nil || o.size > openedBytes { // some are never applied, and so never taken
		o.opened, o.size = make(map[entryHead]opened), 0
	}
	o.size += len(c.entry) - len(o.opened[head].entry)
	o.opened[head] = c
}

// take returns what is in an entry, and keeps it no longer. It returns nil if it is not known.
func (o *Opener) take(entry []byte) []byte {
	head, ok := headOf(entry)
	o.mu.Lock()
	defer o.mu.Unlock()
	c, known := o.opened[head]
	if !ok || !known || !bytes.Equal(c.entry, entry) {
		return nil
	}
	delete(o.opened, head)
	o.size -= len(entry)
	return c.plain
}

// has reports whether an entry with that beginning is kept. Take compares the rest.
func (o *Opener) has(entry []byte) bool {
	head, ok := headOf(entry)
	o.mu.Lock()
	defer o.mu.Unlock()
	_, known := o.opened[head]
	return ok && known
}

func headOf(entry []byte) (head entryHead, ok bool) {
	return head, copy(head[:], entry) == len(head)
}
