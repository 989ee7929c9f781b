package state

import (
	"bytes"
	"time"

	"github.com/flotilla-ha/flotilla/internal/codec"
	"github.com/flotilla-ha/flotilla/internal/keyspace"
)

// MaxItemOps is how many conditions, and how many operations, a [WriteItems] has at most.
const MaxItemOps = 128

// WriteItems changes items of a bucket, if all conditions are true: all of them or none.
type WriteItems struct {
	// Bucket is the bucket's name.
	Bucket string

	// If are the conditions. An outcome that [Code.Conflict] knows tells which one is not true.
	If []ItemIf

	// Ops are the changes, one after another.
	Ops []ItemOp

	// MaxRecords is the proposer's limit of the size of all items, in bytes.
	MaxRecords int64
}

// ItemIf is a condition on one item.
type ItemIf struct {
	// Key is the item's key in the bucket.
	Key string

	// Is is what must be true of it.
	Is ItemTest

	// Version is the version for IsVersion, and 0 for the others.
	Version uint64
}

// ItemTest is what a condition says of an item.
type ItemTest byte

// These are the tests. Their numbers are in the log.
const (
	// IsAbsent says that there is no item.
	IsAbsent ItemTest = iota + 1

	// IsPresent says that there is an item.
	IsPresent

	// IsVersion says that there is an item, and that its version is the given one.
	IsVersion
)

// holds reports whether the condition is true.
func (c ItemIf) holds(s *State, bucket string) bool {
	i := s.Items.Get(ItemName(bucket, c.Key))
	switch c.Is {
	case IsAbsent:
		return i == nil
	case IsPresent:
		return i != nil
	}
	return i != nil && i.Version == c.Version
}

// ItemOp is one change of an item. Put and Refresh are nil for a deletion.
type ItemOp struct {
	// Key is the item's key in the bucket.
	Key string

	// Put is the item to store. Nil: the operation stores none.
	Put *ItemPut

	// Refresh lets the time of the item begin again. An item that is not there, or does not expire,
	// is left as it is.
	Refresh bool
}

// ItemPut is what an operation stores.
type ItemPut struct {
	// Value is the item's value.
	Value []byte

	// TTL is how long the item lasts, unless it is refreshed. 0: until it is deleted.
	TTL time.Duration

	// Session says that the item ends with the session of the proposer.
	Session bool
}

const (
	opDelete byte = iota + 1
	opPut
	opRefresh
)

func (WriteItems) number() byte     { return numberWriteItems }
func (WriteItems) requires() uint64 { return 2 }

func (c WriteItems) encode(e *codec.Encoder) {
	e.String(c.Bucket)
	e.Uint(uint64(len(c.If)))
	for _, q := range c.If {
		e.String(q.Key)
		e.Byte(byte(q.Is))
		e.Uint(q.Version)
	}
	e.Uint(uint64(len(c.Ops)))
	for _, op := range c.Ops {
		op.encode(e)
	}
	e.Int(c.MaxRecords)
}

func (op ItemOp) encode(e *codec.Encoder) {
	switch {
	case op.Put != nil:
		e.Grow(len(op.Key) + len(op.Put.Value) + 64) // and the numbers
		e.Byte(opPut)
		e.String(op.Key)
		e.Bytes(op.Put.Value)
		e.Int(int64(op.Put.TTL))
		e.Bool(op.Put.Session)
	case op.Refresh:
		e.Byte(opRefresh)
		e.String(op.Key)
	default:
		e.Byte(opDelete)
		e.String(op.Key)
	}
}

func decodeWriteItems(d *codec.Decoder) Change {
	c := WriteItems{Bucket: d.String()}
	for range d.Count() {
		q := ItemIf{Key: d.String(), Is: ItemTest(d.Byte()), Version: d.Uint()}
		d.Bad = d.Bad || q.Is < IsAbsent || q.Is > IsVersion || q.Is != IsVersion && q.Version != 0
		c.If = append(c.If, q)
	}
	for range d.Count() {
		c.Ops = append(c.Ops, decodeItemOp(d))
	}
	c.MaxRecords = d.Int()
	d.Bad = d.Bad || len(c.If) > MaxItemOps || len(c.Ops) > MaxItemOps
	return c
}

func decodeItemOp(d *codec.Decoder) ItemOp {
	kind := d.Byte()
	op := ItemOp{Key: d.String()}
	switch kind {
	case opPut:
		op.Put = &ItemPut{Value: d.Bytes(), TTL: time.Duration(d.Int()), Session: d.Bool()}
		d.Bad = d.Bad || op.Put.TTL < 0
	case opRefresh:
		op.Refresh = true
	case opDelete:
	default:
		d.Bad = true
	}
	return op
}

// Size returns how many bytes the change takes in the entry.
func (c WriteItems) Size() int {
	var e codec.Encoder
	c.encode(&e)
	return len(e.B)
}

func (c WriteItems) apply(s *State, e entry) Code {
	for n, q := range c.If {
		if !q.holds(s, c.Bucket) {
			e.fx.contend(ItemName(c.Bucket, q.Key))
			return conflict(n)
		}
	}
	next, all := *s, Effects{}
	for _, op := range c.Ops {
		op.apply(&next, c, entry{e.Command, e.index, &all})
	}
	// Only the sum counts: the order of the operations does not matter.
	grows := next.Used[keyspace.ProgramItems] - s.Used[keyspace.ProgramItems]
	if !s.HasRoom(keyspace.ProgramItems, grows, c.MaxRecords) {
		return CodeFull
	}
	*s = next
	e.fx.add(all)
	return CodeOK
}

// apply carries out one operation.
func (op ItemOp) apply(s *State, c WriteItems, e entry) {
	name := ItemName(c.Bucket, op.Key)
	old := s.Items.Get(name)
	switch {
	case op.Refresh:
		if old == nil || old.TTL == 0 {
			return
		}
		next := *old
		next.Renewed, next.Time = e.index, e.Time
		putItem(s, name, &next, e.fx)
	case op.Put == nil:
		deleteItem(s, Deletion{Name: name, Version: e.index}, e.fx)
	default:
		value := op.Put.Value
		if len(c.Ops) > 1 {
			value = bytes.Clone(value) // else it would keep the others of its command in memory
		}
		next := &Item{Value: value, Version: e.index, Renewed: e.index, TTL: op.Put.TTL, Time: e.Time}
		if op.Put.Session {
			next.Node, next.Session = e.Node, e.Session
		}
		putItem(s, name, next, e.fx)
	}
}

// ExpireItems deletes items whose time is over, as the leader has found. An item that was renewed
// since then stays.
type ExpireItems struct {
	// Items are those items.
	Items []ItemAt
}

// ItemAt names an item as it was.
type ItemAt struct {
	// Name is the item's name.
	Name string

	// Renewed is the index of the entry that wrote or refreshed it last.
	Renewed uint64
}

func (ExpireItems) number() byte     { return numberExpireItems }
func (ExpireItems) requires() uint64 { return 2 }

func (c ExpireItems) encode(e *codec.Encoder) {
	e.Uint(uint64(len(c.Items)))
	for _, i := range c.Items {
		e.String(i.Name)
		e.Uint(i.Renewed)
	}
}

func decodeExpireItems(d *codec.Decoder) Change {
	var c ExpireItems
	for range d.Count() {
		c.Items = append(c.Items, ItemAt{d.String(), d.Uint()})
	}
	return c
}

func (c ExpireItems) apply(s *State, e entry) Code {
	for _, i := range c.Items {
		if old := s.Items.Get(i.Name); old != nil && old.TTL != 0 && old.Renewed == i.Renewed {
			deleteItem(s, Deletion{Name: i.Name, Version: e.index, Expired: true}, e.fx)
		}
	}
	return CodeOK
}
