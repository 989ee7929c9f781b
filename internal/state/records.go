package state

import (
	"bytes"
	"strings"

	"github.com/flotilla-ha/flotilla/internal/codec"
	"github.com/flotilla-ha/flotilla/internal/keyspace"
)

// compromised ends the key that certmagic moves a certificate's private key to when others may know
// that private key.
const compromised = ".compromised"

// Value is one stored value. Its slice is never written to.
type Value struct {
	// Value is what was stored.
	Value []byte

	modified int64 // clock of the writer, in Unix nanoseconds

	// Index is the index of the entry that stored the value.
	Index uint64
}

func (v *Value) encode(e *codec.Encoder) {
	e.Int(v.modified)
	e.Uint(v.Index)
	e.Bytes(v.Value)
}

func decodeValue(d *codec.Decoder) *Value {
	return &Value{modified: d.Int(), Index: d.Uint(), Value: d.Bytes()}
}

// Record is one value to store.
type Record struct {
	// Key is the key in its clean form.
	Key string

	// Value is what is stored.
	Value []byte
}

// Record returns the record at key.
func (s *State) Record(key string) (*Value, bool) { return s.Records.Get(keyspace.Tree(key)) }

// RecordGrows returns by how much the state grows if value is stored at key.
func (s *State) RecordGrows(key string, value []byte) int64 {
	if old, ok := s.Record(key); ok {
		return int64(len(value) - len(old.Value))
	}
	return int64(len(key) + len(value))
}

// HasRoom reports whether a budget has room for grows more bytes, with the limit of a field of
// Config: see keyspace.Budget.Limit. The limit comes with the command, so every node gets the same
// result.
func (s *State) HasRoom(b keyspace.Budget, grows, limit int64) bool {
	return grows <= 0 || s.Used[b]+grows <= b.Limit(limit)
}

// Bytes returns how many bytes of the state count against the budgets.
func (s *State) Bytes() (sum int64) {
	for _, used := range s.Used {
		sum += used
	}
	return sum
}

// isDir reports whether there are keys below key. All keys are below the empty one.
func (s *State) isDir(key string) bool {
	it := s.Records.Root().Iterator()
	it.SeekPrefix(keyspace.Below(key))
	_, _, ok := it.Next()
	return ok
}

// isBelowRecord reports whether a key above key has a value.
func (s *State) isBelowRecord(key string) bool {
	for i := range len(key) {
		if key[i] != '/' {
			continue
		}
		if _, ok := s.Record(key[:i]); ok {
			return true
		}
	}
	return false
}

// store stores one record.
func (s *State) store(r Record, maxState int64, e entry) Code {
	if s.isDir(r.Key) {
		return CodeIsDir
	}
	if s.isBelowRecord(r.Key) {
		return CodeNotDir
	}
	b, grows := keyspace.OfRecord(r.Key), s.RecordGrows(r.Key, r.Value)
	if !s.HasRoom(b, grows, maxState) {
		return CodeFull
	}
	s.Used[b] += grows
	s.Records, _, _ = s.Records.Insert(keyspace.Tree(r.Key), &Value{Value: r.Value, modified: e.Time, Index: e.index})
	e.fx.record(r.Key)
	// Clients that resume go on trusting the certificate that they have seen. So tickets are
	// dropped when a private key is marked as compromised, and again when there is another key:
	// until then the old certificate is served.
	_, marked := s.Record(r.Key + compromised)
	if marked || strings.HasSuffix(r.Key, ".key"+compromised) {
		s.Tickets = nil
		e.fx.ticket(true)
	}
	return CodeOK
}

// putItem stores an item under that name.
func putItem(s *State, name string, i *Item, fx *Effects) {
	s.Used[keyspace.ProgramItems] += s.Items.insert(name, i)
	fx.item(ItemChange{Name: name, Version: i.Renewed, Item: i})
}

// deleteItem deletes an item, if there is one.
func deleteItem(s *State, x Deletion, fx *Effects) {
	if shrinks := s.Items.remove(x); shrinks != 0 {
		s.Used[keyspace.ProgramItems] -= shrinks
		fx.item(ItemChange{Name: x.Name, Version: x.Version, Expired: x.Expired})
	}
}

// deleteOwned deletes the items of a session that ends.
func deleteOwned(s *State, index uint64, node string, fx *Effects) {
	for _, name := range s.Items.ofNode(node) {
		deleteItem(s, Deletion{Name: name, Version: index, Expired: true}, fx)
	}
}

// StoreRecord stores a value.
type StoreRecord struct {
	// Key is the key in its clean form.
	Key string

	// Value is what is stored.
	Value []byte

	// MaxState is the proposer's limit of the state's size, in bytes.
	MaxState int64

	// If is a condition without which the command does nothing. Nil: there is no condition.
	If *Condition
}

// Condition is that the record at Key is the one that the entry Index stored.
type Condition struct {
	// Key is the key in its clean form.
	Key string

	// Index is the index of the entry.
	Index uint64
}

func (StoreRecord) number() byte { return numberStoreRecord }

func (c StoreRecord) encode(e *codec.Encoder) {
	e.Grow(len(c.Key) + len(c.Value) + 64) // and the numbers
	e.String(c.Key)
	e.Bytes(c.Value)
	e.Int(c.MaxState)
	e.Bool(c.If != nil)
	if c.If != nil {
		e.String(c.If.Key)
		e.Uint(c.If.Index)
	}
}

func decodeStoreRecord(d *codec.Decoder) Change {
	c := StoreRecord{Key: d.String(), Value: d.Bytes(), MaxState: d.Int()}
	if d.Bool() {
		c.If = &Condition{Key: d.String(), Index: d.Uint()}
	}
	return c
}

func (c StoreRecord) apply(s *State, e entry) Code {
	if c.If != nil {
		if r, ok := s.Record(c.If.Key); !ok || r.Index != c.If.Index {
			return CodeChanged
		}
	}
	return s.store(Record{c.Key, c.Value}, c.MaxState, e)
}

// PutRecords stores several values: all of them or none.
type PutRecords struct {
	// Records are what is stored. Their keys are in their clean form.
	Records []Record

	// MaxState is the proposer's limit of the state's size, in bytes.
	MaxState int64
}

// Size returns how many bytes the records take in the entry.
func (c PutRecords) Size() int {
	var e codec.Encoder
	c.encode(&e)
	return len(e.B)
}

func (PutRecords) number() byte { return numberPutRecords }

func (c PutRecords) encode(e *codec.Encoder) {
	e.Uint(uint64(len(c.Records)))
	for _, r := range c.Records {
		e.String(r.Key)
		e.Bytes(r.Value)
	}
	e.Int(c.MaxState)
}

func decodePutRecords(d *codec.Decoder) Change {
	var c PutRecords
	for range d.Count() {
		c.Records = append(c.Records, Record{d.String(), d.Bytes()})
	}
	c.MaxState = d.Int()
	return c
}

func (c PutRecords) apply(s *State, e entry) Code {
	next, all := *s, Effects{}
	for _, r := range c.Records {
		r.Value = bytes.Clone(r.Value) // else it would keep the others of its command in memory
		if code := next.store(r, c.MaxState, entry{e.Command, e.index, &all}); code != CodeOK {
			return code
		}
	}
	*s = next
	e.fx.add(all)
	return CodeOK
}

// DeleteRecords deletes the value at a key, and all values below it.
type DeleteRecords struct {
	// Key is the key in its clean form. Empty: all values are deleted.
	Key string
}

func (DeleteRecords) number() byte { return numberDeleteRecords }

func (c DeleteRecords) encode(e *codec.Encoder) { e.String(c.Key) }

func decodeDeleteRecords(d *codec.Decoder) Change { return DeleteRecords{Key: d.String()} }

func (c DeleteRecords) apply(s *State, e entry) Code {
	txn := s.Records.Txn()
	if c.Key != "" {
		if old, ok := txn.Delete(keyspace.Tree(c.Key)); ok {
			s.Used[keyspace.OfRecord(c.Key)] -= int64(len(c.Key) + len(old.Value))
			e.fx.record(c.Key)
		}
	}
	for k, r := range Each(s.Records, keyspace.Below(c.Key)) {
		s.Used[keyspace.OfRecord(string(k))] -= int64(len(k) + len(r.Value))
		e.fx.record(keyspace.Plain(k))
	}
	txn.DeletePrefix(keyspace.Below(c.Key))
	s.Records = txn.CommitOnly()
	return CodeOK
}
