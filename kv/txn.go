package kv

import (
	"context"
	"fmt"
	"io/fs"

	"github.com/flotilla-ha/flotilla/internal/errs"
	"github.com/flotilla-ha/flotilla/internal/state"
)

// Cond is a condition of a Txn. IfAbsent, IfExists and IfVersion make one.
type Cond struct{ test state.ItemIf }

// IfAbsent is the condition that there is no entry with that key.
func IfAbsent(key string) Cond { return Cond{state.ItemIf{Key: key, Is: state.IsAbsent}} }

// IfExists is the condition that there is an entry with that key.
func IfExists(key string) Cond { return Cond{state.ItemIf{Key: key, Is: state.IsPresent}} }

// IfVersion is the condition that the entry with that key has this version. The version 0 stands
// for no entry.
func IfVersion(key string, version uint64) Cond {
	if version == 0 {
		return IfAbsent(key)
	}
	return Cond{state.ItemIf{Key: key, Is: state.IsVersion, Version: version}}
}

// Key returns the key that the condition is about.
func (c Cond) Key() string { return c.test.Key }

// String says what the condition demands.
func (c Cond) String() string {
	switch c.test.Is {
	case state.IsAbsent:
		return fmt.Sprintf("%q is absent", c.test.Key)
	case state.IsPresent:
		return fmt.Sprintf("%q exists", c.test.Key)
	}
	return fmt.Sprintf("%q has version %d", c.test.Key, c.test.Version)
}

// ConflictError is the error of a Txn whose condition was not true. It wraps ErrConflict.
type ConflictError struct {
	// Cond is the first condition that was not true.
	Cond Cond
}

// Error names the condition.
func (e *ConflictError) Error() string { return ErrConflict.Error() + ": " + e.Cond.String() }

// Unwrap returns ErrConflict.
func (e *ConflictError) Unwrap() error { return ErrConflict }

// Op is an operation of a Txn. Put, Delete and Refresh make one.
type Op struct{ op state.ItemOp }

// Put is the operation that stores value.
func Put(key string, value []byte, opts Options) Op {
	return Op{state.ItemOp{Key: key, Put: &state.ItemPut{Value: value, TTL: opts.TTL, Session: opts.Session}}}
}

// Delete is the operation that deletes an entry. It does nothing if there is none.
func Delete(key string) Op { return Op{state.ItemOp{Key: key}} }

// Refresh is the operation that lets the TTL of an entry begin again. It does nothing if there is
// none, or if it does not expire.
func Refresh(key string) Op { return Op{state.ItemOp{Key: key, Refresh: true}} }

// Txn carries out the operations if all conditions are true. It is one entry of the log, and so all
// or nothing: nobody sees a part of it, and all entries that it writes have the same version. If a
// condition is not true, nothing changes, and the error is a *ConflictError. There are at most
// MaxOps conditions and MaxOps operations, with MaxValue bytes together. No two operations are on
// the same key.
func (s *Store) Txn(ctx context.Context, conds []Cond, ops []Op) error {
	if err := s.txn(ctx, conds, ops); err != nil {
		return errs.Edge(fmt.Sprintf("changing the bucket %q", s.bucket), err)
	}
	return nil
}

func (s *Store) txn(ctx context.Context, conds []Cond, ops []Op) error {
	if err := checkBucket(s.bucket); err != nil {
		return err
	}
	if len(conds) > MaxOps || len(ops) > MaxOps {
		return fmt.Errorf("%w: %d conditions and %d operations, the limit is %d of each", errs.ErrTooLarge, len(conds), len(ops), MaxOps)
	}
	c := state.WriteItems{Bucket: s.bucket}
	for _, cond := range conds {
		if err := checkKey(cond.Key()); err != nil {
			return fmt.Errorf("the condition %v: %w", cond, err)
		}
		c.If = append(c.If, cond.test)
	}
	seen := make(map[string]bool)
	for _, op := range ops {
		if err := op.check(); err != nil {
			return fmt.Errorf("the operation on %.64q: %w", op.op.Key, err)
		}
		if seen[op.op.Key] {
			return fmt.Errorf("%w: there are two operations on %q", fs.ErrInvalid, op.op.Key)
		}
		seen[op.op.Key] = true
		c.Ops = append(c.Ops, op.op)
	}
	if size := c.Size(); size > MaxValue+txnRoom {
		return fmt.Errorf("%w: the transaction has %d bytes, the limit is %d", errs.ErrTooLarge, size, MaxValue)
	}
	_, err := s.b.write(ctx, c)
	return err
}

// txnRoom is what the names and numbers of the largest single value may take beside it.
const txnRoom = 4 << 10

func (op Op) check() error {
	if err := checkKey(op.op.Key); err != nil {
		return err
	}
	if put := op.op.Put; put != nil {
		if len(put.Value) > MaxValue {
			return fmt.Errorf("%w: the value has %d bytes, the limit is %d", errs.ErrTooLarge, len(put.Value), MaxValue)
		}
		return checkOptions(Options{TTL: put.TTL})
	}
	return nil
}
