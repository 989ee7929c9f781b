package exporter

import (
	"context"
	"iter"
	"slices"

	"github.com/flotilla-ha/flotilla/cmd/flotilla/internal/records"
	"github.com/flotilla-ha/flotilla/internal/remote"
)

// Store is the cluster that records are exported from.
type Store interface {
	Load(ctx context.Context, keys []string) iter.Seq2[remote.Record, error]
}

// Select returns the keys that are exported, and counts those that are left out.
func Select(keys []string) (selected []string, left map[records.Kind]int) {
	left = make(map[records.Kind]int)
	for _, key := range keys {
		if k, _ := records.KindOf(key); k.LeftOut() {
			left[k]++
		} else {
			selected = append(selected, key)
		}
	}
	return selected, left
}

// Run writes what the keys hold and counts it in the report. It calls progress after each file. An
// error says that no node answered.
func Run(ctx context.Context, store Store, t *Target, keys []string, r *records.Report, progress func()) error {
	add := func(key string, o records.Outcome, text string) {
		k, _ := records.KindOf(key)
		r.Add(k, key, o, text)
	}
	// A key that cannot be a file name is refused before its value crosses the network.
	keys = slices.DeleteFunc(slices.Clone(keys), func(key string) bool {
		err := CheckName(key)
		if err != nil {
			add(key, records.Refused, err.Error())
		}
		return err != nil
	})
	for record, err := range store.Load(ctx, keys) {
		if err != nil {
			return err
		}
		written, err := t.Write(record.Key, record.Value)
		switch {
		case err != nil:
			add(record.Key, records.Refused, err.Error())
		case written:
			add(record.Key, records.Written, "")
		default:
			add(record.Key, records.Same, "")
		}
		progress()
	}
	return nil
}
