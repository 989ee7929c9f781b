package kv

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/flotilla-ha/flotilla/internal/changes"
	"github.com/flotilla-ha/flotilla/internal/errs"
	"github.com/flotilla-ha/flotilla/internal/keyspace"
	"github.com/flotilla-ha/flotilla/internal/state"
)

// The limits of keys, values and transactions.
const (
	MaxKey    = 1024              // bytes of a key
	MaxBucket = 64                // bytes of a bucket's name
	MaxValue  = keyspace.MaxValue // bytes of a value, and of all of a Txn
	MaxOps    = state.MaxItemOps  // conditions, and operations, of a Txn
)

var (
	// ErrConflict is wrapped by the error of a Txn whose condition was not true. That error is a
	// *ConflictError.
	ErrConflict = errors.New("a condition is not true")

	// ErrLagged is wrapped by the last error of a Watch that was so slow that it cannot know any more
	// which entries were deleted. Begin another Watch.
	ErrLagged = changes.ErrLagged
)

// Entry is one entry of a bucket.
type Entry struct {
	// Key is the key.
	Key string

	// Value is what is stored. It is the caller's own copy, except in an Event.
	Value []byte

	// Version is the index of the log entry that wrote the entry. It is 0 if there is no entry.
	Version uint64

	// Expires is about when the entry expires: the time of the last write or refresh, by the writer's
	// clock, and Options.TTL. It is for people. It is the zero time for an entry that does not expire.
	Expires time.Time
}

// Options are how an entry is kept. The zero value keeps it until it is deleted.
type Options struct {
	// TTL is how long the entry is kept, unless it is written again or refreshed. 0: until it is
	// deleted.
	TTL time.Duration

	// Session binds the entry to the session of the node that writes it. The entry is deleted when the
	// session ends: the node shuts down, or dies, or loses its lease. The program writes it again
	// then, if it is still there.
	Session bool
}

// Event is a change of an entry.
type Event struct {
	// Entry is the entry after the change. Of a deleted one it has only the key, and the version of
	// the deletion. All watches of a node may get the same Value: do not change its bytes.
	Entry Entry

	// Deleted says that the entry is gone.
	Deleted bool

	// Expired says that nobody has deleted the entry: its TTL is over, or the session that it was
	// bound to.
	Expired bool
}

// entryOf returns the item with that name as a caller gets it.
func entryOf(name string, i *state.Item) Entry {
	return Entry{
		Key: state.ItemKey(name), Value: append([]byte{}, i.Value...), Version: i.Version, Expires: expires(i),
	}
}

// expires returns about when an item expires, by the clock of the node that renewed it.
func expires(i *state.Item) time.Time {
	if i.TTL == 0 {
		return time.Time{}
	}
	return time.Unix(0, i.Time).Add(i.TTL)
}

// eventOf returns a change as a watch yields it.
func (b *Backend) eventOf(c state.ItemChange) Event {
	if c.Item == nil {
		return Event{Entry: Entry{Key: state.ItemKey(c.Name), Version: c.Version}, Deleted: true, Expired: c.Expired}
	}
	return Event{Entry: Entry{
		Key: state.ItemKey(c.Name), Value: b.copies.of(c.Name, c.Item), Version: c.Item.Version, Expires: expires(c.Item),
	}}
}

func checkKey(key string) error {
	switch {
	case key == "":
		return fmt.Errorf("%w: a key has at least one byte", fs.ErrInvalid)
	case len(key) > MaxKey:
		return fmt.Errorf("%w: the key has %d bytes, the limit is %d", errs.ErrTooLarge, len(key), MaxKey)
	case !utf8.ValidString(key):
		return fmt.Errorf("%w: a key is UTF-8 text", fs.ErrInvalid)
	}
	return nil
}

func checkBucket(bucket string) error {
	if bucket == "" || len(bucket) > MaxBucket || !utf8.ValidString(bucket) || strings.Contains(bucket, "\x00") {
		return fmt.Errorf("%w: the name of a bucket is UTF-8 text of 1 to %d bytes without a zero byte", fs.ErrInvalid, MaxBucket)
	}
	return nil
}

func checkOptions(opts Options) error {
	if opts.TTL < 0 {
		return fmt.Errorf("%w: Options.TTL is %v and cannot be negative", fs.ErrInvalid, opts.TTL)
	}
	return nil
}
