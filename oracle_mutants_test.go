package flotilla_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/flotilla-ha/flotilla"
	"github.com/flotilla-ha/flotilla/internal/synctest"
)

// A checker that finds nothing may be one that sees nothing: each of these mistakes has to be
// found.
func TestOracleSeesMutants(t *testing.T) {
	flotilla.SkipShort(t)
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		plain := oracleCluster(t, 1)[0]
		for _, mutant := range []struct {
			name string
			lockingStorage
		}{
			{"none", plain},
			{"delete goes by the first bytes of names", deletesByBytes{plain}},
			{"delete leaves what is below", deletesOne{plain}},
			{"recursive lists have no directories", listsNoDirs{plain}},
			{"lists are not in order", listsBackwards{plain}},
			{"lists are in the order of bytes", listsSorted{plain}},
			{"an empty value is nil", loadsNil{plain}},
			{"a load is late by one write", &loadsStale{plain, make(map[string][2][]byte)}},
			{"a loaded value is not a copy", &loadsShared{plain, make(map[string][]byte)}},
			{"what does not exist is another error", hidesAbsence{plain}},
			{"directories do not exist", existsForValues{plain}},
			{"a failed store takes effect", storesAnyway{plain}},
			{"a held lock is there for the taking", locksTwice{plain}},
			{"an unlock never fails", unlocksAll{plain}},
		} {
			w := newWorld(t, []lockingStorage{mutant.lockingStorage})
			ops := randomOps(rand.New(rand.NewPCG(1, 2)), 1, 1000)
			i, _ := w.run(ops)
			if found := i >= 0; found != (mutant.name != "none") {
				t.Errorf("%s: found is %v after %d operations", mutant.name, found, len(ops))
			}
			t.Logf("%s: found by operation %d of %d", mutant.name, i, len(ops))
			if mutant.name == "a load is late by one write" { // once is enough to see that shrinking works
				shortest := w.shrink(ops[:i+1])
				t.Log(shortest)
				if len(shortest) > 3 {
					t.Errorf("shrunk to %d operations, want a store, another and a load: %v", len(shortest), shortest)
				}
			}
			w.nodes = []lockingStorage{plain}
			w.release()
		}
	})
}

type deletesByBytes struct{ lockingStorage }

func (s deletesByBytes) Delete(ctx context.Context, key string) error {
	keys, _ := s.List(ctx, "", true)
	for _, k := range keys {
		if strings.HasPrefix(k, key) {
			s.lockingStorage.Delete(ctx, k)
		}
	}
	return s.lockingStorage.Delete(ctx, key)
}

type deletesOne struct{ lockingStorage }

func (s deletesOne) Delete(ctx context.Context, key string) error {
	if info, err := s.Stat(ctx, key); err == nil && !info.IsTerminal && key != "" {
		return nil
	}
	return s.lockingStorage.Delete(ctx, key)
}

type listsNoDirs struct{ lockingStorage }

func (s listsNoDirs) List(ctx context.Context, dir string, recursive bool) ([]string, error) {
	keys, err := s.lockingStorage.List(ctx, dir, recursive)
	if recursive {
		keys = slices.DeleteFunc(keys, func(k string) bool {
			info, err := s.Stat(ctx, k)
			return err == nil && !info.IsTerminal
		})
	}
	return keys, err
}

type listsBackwards struct{ lockingStorage }

func (s listsBackwards) List(ctx context.Context, dir string, recursive bool) ([]string, error) {
	keys, err := s.lockingStorage.List(ctx, dir, recursive)
	slices.Reverse(keys)
	return keys, err
}

type listsSorted struct{ lockingStorage }

func (s listsSorted) List(ctx context.Context, dir string, recursive bool) ([]string, error) {
	keys, err := s.lockingStorage.List(ctx, dir, recursive)
	slices.Sort(keys) // "a.b" comes before "a/b" then
	return keys, err
}

type loadsNil struct{ lockingStorage }

func (s loadsNil) Load(ctx context.Context, key string) ([]byte, error) {
	value, err := s.lockingStorage.Load(ctx, key)
	if len(value) == 0 {
		value = nil
	}
	return value, err
}

// loadsStale answers with the value before at the first load after a store.
type loadsStale struct {
	lockingStorage
	last map[string][2][]byte
}

func (s *loadsStale) Store(ctx context.Context, key string, value []byte) error {
	before, err := s.lockingStorage.Load(ctx, key)
	if err := s.lockingStorage.Store(ctx, key, value); err != nil {
		return err
	}
	if err == nil {
		s.last[key] = [2][]byte{before, slices.Clone(value)}
	}
	return nil
}

func (s *loadsStale) Delete(ctx context.Context, key string) error {
	if key == "" {
		clear(s.last) // a world begins
	}
	return s.lockingStorage.Delete(ctx, key)
}

func (s *loadsStale) Load(ctx context.Context, key string) ([]byte, error) {
	value, err := s.lockingStorage.Load(ctx, key)
	if last, ok := s.last[key]; ok && err == nil {
		delete(s.last, key)
		return last[0], nil
	}
	return value, err
}

// loadsShared hands out the same slice again.
type loadsShared struct {
	lockingStorage
	shared map[string][]byte
}

func (s *loadsShared) Store(ctx context.Context, key string, value []byte) error {
	delete(s.shared, key)
	return s.lockingStorage.Store(ctx, key, value)
}

func (s *loadsShared) Load(ctx context.Context, key string) ([]byte, error) {
	value, err := s.lockingStorage.Load(ctx, key)
	if shared, ok := s.shared[key]; ok && err == nil {
		return shared, nil
	}
	s.shared[key] = value
	return value, err
}

type hidesAbsence struct{ lockingStorage }

func (s hidesAbsence) Load(ctx context.Context, key string) ([]byte, error) {
	value, err := s.lockingStorage.Load(ctx, key)
	if err != nil {
		err = errors.New(err.Error())
	}
	return value, err
}

type existsForValues struct{ lockingStorage }

func (s existsForValues) Exists(ctx context.Context, key string) bool {
	info, err := s.Stat(ctx, key)
	return err == nil && info.IsTerminal
}

type storesAnyway struct{ lockingStorage }

func (s storesAnyway) Store(ctx context.Context, key string, value []byte) error {
	err := s.lockingStorage.Store(ctx, key, value)
	if info, staterr := s.Stat(ctx, key); err != nil && staterr == nil && !info.IsTerminal && key != "" {
		s.Delete(ctx, key)
		s.lockingStorage.Store(ctx, key, value)
	}
	return err
}

type locksTwice struct{ lockingStorage }

func (s locksTwice) TryLock(ctx context.Context, name string) (bool, error) {
	_, err := s.lockingStorage.TryLock(ctx, name)
	return err == nil, err
}

type unlocksAll struct{ lockingStorage }

func (s unlocksAll) Unlock(ctx context.Context, name string) error {
	s.lockingStorage.Unlock(ctx, name)
	return nil
}
