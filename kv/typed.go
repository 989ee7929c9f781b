package kv

import (
	"context"
	"encoding/json"
	"fmt"
	"iter"
	"time"
)

// Map is a Store whose values are of one type, as JSON. Typed makes it. Its methods are those of
// Store. An error for a value that is not the JSON of a T names the key.
type Map[T any] struct{ store *Store }

// Typed returns the entries of a store with values of a type.
func Typed[T any](s *Store) Map[T] { return Map[T]{s} }

// Item is an Entry with a value of a type.
type Item[T any] struct {
	// Key is the key.
	Key string

	// Value is what is stored. It is the zero value if there is no entry.
	Value T

	// Version is as that of Entry.
	Version uint64

	// Expires is as that of Entry.
	Expires time.Time
}

// Change is an Event with a value of a type.
type Change[T any] struct {
	// Item is as the Entry of Event.
	Item Item[T]

	// Deleted is as that of Event.
	Deleted bool

	// Expired is as that of Event.
	Expired bool
}

// itemOf decodes an entry.
func itemOf[T any](s *Store, e Entry) (Item[T], error) {
	i := Item[T]{Key: e.Key, Version: e.Version, Expires: e.Expires}
	if err := json.Unmarshal(e.Value, &i.Value); err != nil {
		return i, s.fail("decode", e.Key, fmt.Errorf("the value is no JSON of a %T: %w", i.Value, err))
	}
	return i, nil
}

// Get is Store.Get.
func (m Map[T]) Get(ctx context.Context, key string) (Item[T], error) {
	e, err := m.store.Get(ctx, key)
	if err != nil {
		return Item[T]{}, err
	}
	return itemOf[T](m.store, e)
}

// Put is Store.Put.
func (m Map[T]) Put(ctx context.Context, key string, value T, opts Options) (Item[T], error) {
	b, err := json.Marshal(value)
	if err != nil {
		return Item[T]{}, m.store.fail("encode", key, err)
	}
	e, err := m.store.Put(ctx, key, b, opts)
	if err != nil {
		return Item[T]{}, err
	}
	return Item[T]{Key: key, Value: value, Version: e.Version, Expires: e.Expires}, nil
}

// Update is Store.Update.
func (m Map[T]) Update(ctx context.Context, key string, f func(old Item[T]) (T, error), opts Options) (Item[T], error) {
	var value T
	e, err := m.store.Update(ctx, key, func(e Entry) ([]byte, error) {
		old := Item[T]{Key: key}
		if e.Version != 0 {
			var err error
			if old, err = itemOf[T](m.store, e); err != nil {
				return nil, err
			}
		}
		var err error
		if value, err = f(old); err != nil {
			return nil, err
		}
		b, err := json.Marshal(value)
		if err != nil {
			return nil, m.store.fail("encode", key, err)
		}
		return b, nil
	}, opts)
	if err != nil {
		return Item[T]{}, err
	}
	return Item[T]{Key: key, Value: value, Version: e.Version, Expires: e.Expires}, nil
}

// Delete is Store.Delete.
func (m Map[T]) Delete(ctx context.Context, key string) error { return m.store.Delete(ctx, key) }

// List is Store.List. A value that cannot be decoded ends it.
func (m Map[T]) List(ctx context.Context, prefix string) iter.Seq2[Item[T], error] {
	return func(yield func(Item[T], error) bool) {
		for e, err := range m.store.List(ctx, prefix) {
			var i Item[T]
			if err == nil {
				i, err = itemOf[T](m.store, e)
			}
			if !yield(i, err) || err != nil {
				return
			}
		}
	}
}

// Watch is Store.Watch. A value that cannot be decoded ends it.
func (m Map[T]) Watch(ctx context.Context, prefix string) iter.Seq2[Change[T], error] {
	return func(yield func(Change[T], error) bool) {
		for ev, err := range m.store.Watch(ctx, prefix) {
			c := Change[T]{Item: Item[T]{Key: ev.Entry.Key, Version: ev.Entry.Version}, Deleted: ev.Deleted, Expired: ev.Expired}
			if err == nil && !ev.Deleted {
				c.Item, err = itemOf[T](m.store, ev.Entry)
			}
			if !yield(c, err) || err != nil {
				return
			}
		}
	}
}
