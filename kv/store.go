package kv

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"iter"

	"github.com/flotilla-ha/flotilla/internal/errs"
	"github.com/flotilla-ha/flotilla/internal/keyspace"
	"github.com/flotilla-ha/flotilla/internal/state"
)

// Store is a bucket of entries, the same on every node. Node.KV returns it. Its methods are safe
// for concurrent use. An error of a bucket's name that is no good wraps fs.ErrInvalid.
type Store struct {
	b      *Backend
	bucket string
}

// fail returns the error of a call about a key.
func (s *Store) fail(op, key string, err error) error {
	if err == nil {
		return nil
	}
	if errors.Is(err, errs.ErrClosed) {
		return errs.ErrClosed
	}
	if len(key) > 64 {
		key = key[:64] + "…"
	}
	return fmt.Errorf("flotilla: %w", &fs.PathError{Op: op, Path: s.bucket + "/" + key, Err: err})
}

// check checks a bucket's name and a key.
func (s *Store) check(key string) error {
	if err := checkBucket(s.bucket); err != nil {
		return err
	}
	return checkKey(key)
}

// Get returns the entry with that key. The error wraps fs.ErrNotExist if there is none.
func (s *Store) Get(ctx context.Context, key string) (Entry, error) {
	if err := s.check(key); err != nil {
		return Entry{}, s.fail("get", key, err)
	}
	name := state.ItemName(s.bucket, key)
	st, current := s.b.cfg.Read(ctx)
	i := st.Items.Get(name)
	if i == nil {
		return Entry{}, s.fail("get", key, absent(current))
	}
	return entryOf(name, i), nil
}

// absent is the error for a key that is not in the state.
func absent(current bool) error {
	if current {
		return fs.ErrNotExist
	}
	return errs.ErrNotReady
}

// Put stores value at key, and replaces the entry that is there. It returns the new entry. The
// error wraps flotilla.ErrTooLarge if there is no room.
func (s *Store) Put(ctx context.Context, key string, value []byte, opts Options) (Entry, error) {
	e, err := s.put(ctx, key, value, opts, nil)
	return e, s.fail("put", key, err)
}

// put stores value at key if the conditions are true.
func (s *Store) put(ctx context.Context, key string, value []byte, opts Options, conds []state.ItemIf) (Entry, error) {
	if err := s.check(key); err != nil {
		return Entry{}, err
	}
	op := Put(key, value, opts)
	if err := op.check(); err != nil {
		return Entry{}, err
	}
	name := state.ItemName(s.bucket, key)
	if err := s.room(ctx, name, value); err != nil {
		return Entry{}, err
	}
	a, err := s.b.write(ctx, state.WriteItems{Bucket: s.bucket, If: conds, Ops: []state.ItemOp{op.op}})
	if err != nil {
		return Entry{}, err
	}
	e := Entry{Key: key, Value: append([]byte{}, value...), Version: a.Index}
	// The state has the time that the command named. It may have a newer item by now.
	if i := s.b.cfg.State().Items.Get(name); i != nil && i.Version == a.Index {
		e.Expires = expires(i)
	}
	return e, nil
}

// room refuses a write that has no room now. The state machine decides; this saves a proposal, and
// names the numbers.
func (s *Store) room(ctx context.Context, name string, value []byte) error {
	fits := func(st *state.State) bool {
		grows := int64(len(name) + len(value) + keyspace.ItemCost)
		if old := st.Items.Get(name); old != nil {
			grows = int64(len(value) - len(old.Value))
		}
		return st.HasRoom(keyspace.ProgramItems, grows, s.b.cfg.MaxRecords)
	}
	if fits(s.b.cfg.State()) {
		return nil
	}
	// A node without a lease may not know yet of what has made room.
	st, current := s.b.cfg.Read(ctx)
	if !current || fits(st) {
		return nil
	}
	return keyspace.ProgramItems.Refuse(st.Used[keyspace.ProgramItems], s.b.cfg.MaxRecords)
}

// Delete deletes the entry with that key. It returns nil if there is none.
func (s *Store) Delete(ctx context.Context, key string) error {
	err := s.check(key)
	if err == nil {
		_, err = s.b.write(ctx, state.WriteItems{Bucket: s.bucket, Ops: []state.ItemOp{{Key: key}}})
	}
	return s.fail("delete", key, err)
}

// List yields the entries whose keys begin with prefix, in the order of their keys. All of them are
// of one moment. An error is the last that it yields.
func (s *Store) List(ctx context.Context, prefix string) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		if err := checkBucket(s.bucket); err != nil {
			yield(Entry{}, s.fail("list", prefix, err))
			return
		}
		st, current := s.b.cfg.Read(ctx)
		found := false
		for name, i := range state.Each(st.Items.ByName, []byte(state.ItemName(s.bucket, prefix))) {
			if found = true; !yield(entryOf(string(name), i), nil) {
				return
			}
		}
		if !found && !current {
			yield(Entry{}, s.fail("list", prefix, errs.ErrNotReady))
		}
	}
}
