package state

import (
	"iter"

	iradix "github.com/hashicorp/go-immutable-radix/v2"
)

// Each iterates over the part of a tree whose keys begin with prefix, in the order of the keys. The
// keys must not be written to.
func Each[T any](tree *iradix.Tree[T], prefix []byte) iter.Seq2[[]byte, T] {
	return func(yield func([]byte, T) bool) {
		it := tree.Root().Iterator()
		it.SeekPrefix(prefix)
		for k, v, ok := it.Next(); ok; k, v, ok = it.Next() {
			if !yield(k, v) {
				return
			}
		}
	}
}
