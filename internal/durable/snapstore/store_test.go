package snapstore_test

import (
	"bytes"
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/hashicorp/raft"

	"github.com/flotilla-ha/flotilla/internal/durable/diskfile"
	"github.com/flotilla-ha/flotilla/internal/durable/snapstore"
)

func open(t *testing.T, data string) *snapstore.Store {
	t.Helper()
	s, _, err := snapstore.Open(data, new(diskfile.Places), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// take takes a snapshot up to index, and returns its ID. Any goroutine may call it.
func take(t *testing.T, s *snapstore.Store, index uint64) (id string) {
	t.Helper()
	sink, err := s.Create(1, index, 2, raft.Configuration{}, 1, nil)
	if err != nil {
		t.Errorf("snapshot %d: %v", index, err)
		return ""
	}
	_, err = sink.Write([]byte("content"))
	if err := errors.Join(err, sink.Close()); err != nil {
		t.Errorf("snapshot %d: %v", index, err)
	}
	return sink.ID()
}

func indexes(t *testing.T, list []*raft.SnapshotMeta, err error) (all []uint64) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range list {
		all = append(all, m.Index)
	}
	return all
}

// A finished snapshot removes the one before the last while somebody lists them. That is neither an
// error nor damage, whichever file is removed first.
func TestListWhileOneIsRemoved(t *testing.T) {
	for _, first := range []string{snapstore.StateName, snapstore.MetaName} {
		t.Run(first, func(t *testing.T) {
			data := t.TempDir()
			s := open(t, data)
			older := take(t, s, 10)
			take(t, s, 20)
			if err := os.Remove(filepath.Join(data, snapstore.DirName, older, first)); err != nil {
				t.Fatal(err)
			}
			list, err := s.List()
			if diff := cmp.Diff([]uint64{20}, indexes(t, list, err)); diff != "" {
				t.Errorf("List: %s", diff)
			}
			list, err = snapstore.View(data, true)
			if diff := cmp.Diff([]uint64{20}, indexes(t, list, err)); diff != "" {
				t.Errorf("View: %s", diff)
			}
		})
	}
}

// A list that is made while snapshots are taken begins with the newest, or with one that was
// finished meanwhile. It never goes back to an older one.
func TestListWhileSnapshotsAreTaken(t *testing.T) {
	if testing.Short() {
		t.Skip("a slow test: it runs without -short")
	}
	data := t.TempDir()
	s := open(t, data)
	lists := []func() ([]*raft.SnapshotMeta, error){
		s.List,
		func() ([]*raft.SnapshotMeta, error) { return snapstore.View(data, true) },
	}
	take(t, s, 1)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for index := uint64(2); index <= 60; index++ {
			take(t, s, index)
		}
	}()
	var last uint64
	for running := true; running; {
		select {
		case <-done:
			running = false
		default:
		}
		for _, f := range lists {
			list, err := f()
			all := indexes(t, list, err)
			if len(all) == 0 || all[0] < last {
				t.Fatalf("the newest is one of %d, and %d was seen before", all, last)
			}
			last = all[0]
		}
	}
	if last != 60 {
		t.Errorf("the newest is %d, want 60", last)
	}
}

// Purge overwrites and removes what is older, and leaves the newest in any case.
func TestPurge(t *testing.T) {
	data := t.TempDir()
	s := open(t, data)
	if err := s.Purge(10); err != nil {
		t.Fatalf("without snapshots: %v", err)
	}
	older := take(t, s, 10)
	take(t, s, 20)
	_, reading, err := s.Open(older)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Purge(15); !errors.Is(err, snapstore.ErrInUse) {
		t.Fatalf("while it is read: %v", err)
	}
	content, err := io.ReadAll(reading)
	if err := errors.Join(err, reading.Close()); err != nil || string(content) != "content" {
		t.Fatalf("it was read as %q, %v", content, err)
	}
	state, err := os.Open(filepath.Join(data, snapstore.DirName, older, snapstore.StateName))
	if err != nil {
		t.Fatal(err)
	}
	defer state.Close()
	for _, test := range []struct {
		before uint64
		want   []uint64
	}{{10, []uint64{20, 10}}, {15, []uint64{20}}, {100, []uint64{20}}} {
		if err := s.Purge(test.before); err != nil {
			t.Fatal(err)
		}
		list, err := s.List()
		if diff := cmp.Diff(test.want, indexes(t, list, err)); diff != "" {
			t.Errorf("after the purge of those before %d: %s", test.before, diff)
		}
	}
	left, err := io.ReadAll(state)
	if err != nil || len(bytes.Trim(left, "\x00")) > 0 {
		t.Errorf("its file has still %q, %v", left, err)
	}
}
