package state

import (
	"encoding/binary"
	"strings"
	"time"

	iradix "github.com/hashicorp/go-immutable-radix/v2"

	"github.com/flotilla-ha/flotilla/internal/codec"
	"github.com/flotilla-ha/flotilla/internal/keyspace"
)

// Bounds of what is remembered of items that were deleted.
const (
	maxDeletions     = 16384
	maxDeletionBytes = 1 << 20 // of their names
)

// Item is an entry of a program's bucket, see package kv. It is never written to.
type Item struct {
	// Value is what was stored.
	Value []byte

	// Version is the index of the entry that wrote the item.
	Version uint64

	// Renewed is the index of the entry that wrote or refreshed it last.
	Renewed uint64

	// TTL is how long after Renewed the item expires, by the clock of the leader. 0: it does not.
	TTL time.Duration

	// Node is the node whose session the item ends with. Empty: the item belongs to none.
	Node string

	// Session is the number of that session.
	Session uint64

	// Time is when Renewed was proposed, by the proposer's clock in Unix nanoseconds. It is shown,
	// never compared.
	Time int64
}

// cost returns how many bytes the item counts under that name.
func (i *Item) cost(name string) int64 {
	return int64(len(name) + len(i.Value) + keyspace.ItemCost)
}

func (i *Item) encode(e *codec.Encoder) {
	e.Bytes(i.Value)
	e.Uint(i.Version)
	e.Uint(i.Renewed)
	e.Int(int64(i.TTL))
	e.String(i.Node)
	e.Uint(i.Session)
	e.Int(i.Time)
}

func decodeItem(d *codec.Decoder) *Item {
	return &Item{
		Value: d.Bytes(), Version: d.Uint(), Renewed: d.Uint(), TTL: time.Duration(d.Int()), Node: d.String(), Session: d.Uint(), Time: d.Int(),
	}
}

// ItemName is the name of an item in the state: the bucket, a zero byte and the key. No bucket's
// name contains a zero byte.
func ItemName(bucket, key string) string { return bucket + "\x00" + key }

// ItemKey returns the key in an item's name.
func ItemKey(name string) string {
	_, key, _ := strings.Cut(name, "\x00")
	return key
}

// Deletion is what is remembered of a deleted item.
type Deletion struct {
	// Name is the item's name.
	Name string

	// Version is the index of the entry that deleted it.
	Version uint64

	// Expired says that the item's time was over, or its session. Otherwise somebody deleted it.
	Expired bool
}

// place is a deletion's key in the tree: deletions are in the order of their versions.
func (x Deletion) place() []byte {
	return append(binary.BigEndian.AppendUint64(nil, x.Version), x.Name...)
}

func (x Deletion) encode(e *codec.Encoder) {
	e.String(x.Name)
	e.Uint(x.Version)
	e.Bool(x.Expired)
}

func decodeDeletion(d *codec.Decoder) Deletion {
	return Deletion{Name: d.String(), Version: d.Uint(), Expired: d.Bool()}
}

// Items are the entries of programs' buckets. Its trees are never written to.
type Items struct {
	// ByName has the items by name.
	ByName *iradix.Tree[*Item]

	// Forgotten is the version of the newest deletion that is forgotten.
	Forgotten uint64

	owned     *iradix.Tree[string]   // names of items with an owner, by its node and the name
	deletions *iradix.Tree[Deletion] // the newest ones, by their place
	bytes     int                    // of the names in deletions
}

func newItems() Items {
	return Items{ByName: iradix.New[*Item](), owned: iradix.New[string](), deletions: iradix.New[Deletion]()}
}

// Get returns the item with that name, nil if there is none.
func (q *Items) Get(name string) *Item {
	i, _ := q.ByName.Get([]byte(name))
	return i
}

// Deleted returns the deletions behind a version of the items whose names begin with prefix, in
// their order. It reports false if some of them may be forgotten.
func (q *Items) Deleted(prefix string, after uint64) (all []Deletion, complete bool) {
	it := q.deletions.Root().Iterator()
	it.SeekLowerBound(binary.BigEndian.AppendUint64(nil, after+1))
	for _, x, ok := it.Next(); ok; _, x, ok = it.Next() {
		if strings.HasPrefix(x.Name, prefix) {
			all = append(all, x)
		}
	}
	return all, after >= q.Forgotten
}

// ownedKey is the key of an item in owned.
func ownedKey(node, name string) []byte { return []byte(node + "\x00" + name) }

// insert puts an item in the place of the one that is there. It returns by how many bytes the items
// grow.
func (q *Items) insert(name string, i *Item) int64 {
	var old *Item
	q.ByName, old, _ = q.ByName.Insert([]byte(name), i)
	grows := i.cost(name)
	if old != nil {
		grows -= old.cost(name)
		q.disown(name, old)
	}
	if i.Node != "" {
		q.owned, _, _ = q.owned.Insert(ownedKey(i.Node, name), name)
	}
	return grows
}

func (q *Items) disown(name string, i *Item) {
	if i.Node != "" {
		q.owned, _, _ = q.owned.Delete(ownedKey(i.Node, name))
	}
}

// remove removes an item, and remembers that. It returns by how many bytes the items shrink, 0 if
// there is no such item.
func (q *Items) remove(x Deletion) int64 {
	var old *Item
	if q.ByName, old, _ = q.ByName.Delete([]byte(x.Name)); old == nil {
		return 0
	}
	q.disown(x.Name, old)
	q.remember(x)
	for q.deletions.Len() > maxDeletions || q.bytes > maxDeletionBytes {
		_, oldest, _ := q.deletions.Root().Minimum()
		q.deletions, _, _ = q.deletions.Delete(oldest.place())
		q.bytes -= len(oldest.Name)
		q.Forgotten = oldest.Version
	}
	return old.cost(x.Name)
}

func (q *Items) remember(x Deletion) {
	var twice bool
	if q.deletions, _, twice = q.deletions.Insert(x.place(), x); !twice {
		q.bytes += len(x.Name)
	}
}

// ofNode returns the names of the items that a node's sessions own.
func (q *Items) ofNode(node string) (names []string) {
	for _, name := range Each(q.owned, ownedKey(node, "")) {
		names = append(names, name)
	}
	return names
}

// lasting returns the items without those of sessions, and how many bytes those have.
func (q Items) lasting() (Items, int64) {
	var bytes int64
	for _, name := range Each(q.owned, nil) {
		var old *Item
		q.ByName, old, _ = q.ByName.Delete([]byte(name))
		bytes += old.cost(name)
	}
	q.owned = iradix.New[string]()
	return q, bytes
}
