package flotilla

import (
	"context"
	"errors"
	"io/fs"
	"strings"
	"testing"

	"github.com/flotilla-ha/flotilla/internal/keyspace"
	"github.com/flotilla-ha/flotilla/internal/replica"
	"github.com/flotilla-ha/flotilla/internal/simnet"
	"github.com/flotilla-ha/flotilla/internal/state"
	"github.com/flotilla-ha/flotilla/internal/synctest"
)

// The tests in this file are of single guards of the storage and of what writes. Without its guard
// each of them fails: see TESTING.md.

// Of the callers on one node one has the lock, and a renewal counts for the caller that it was made
// for.
func TestLockHasOneCaller(t *testing.T) {
	s := newStorage(nil, nil)
	first, second := state.Ref{Session: 1, Seq: 1}, state.Ref{Session: 2, Seq: 1}
	if !s.keep("l", nil, first) {
		t.Fatal("the first caller does not get it")
	}
	lock := s.held["l"]
	if s.keep("l", nil, second) || s.held["l"] != lock || lock.ref != first {
		t.Errorf("a second caller gets it while the first has it: %+v", s.held["l"])
	}
	if !s.keep("l", lock, second) || s.held["l"] != lock || lock.ref != second {
		t.Errorf("the caller does not get it again: %+v", s.held["l"])
	}
	s.drop("l", second)
	if s.keep("l", lock, first) || s.held["l"] != nil {
		t.Errorf("a lock that was unlocked is held after a renewal: %+v", s.held["l"])
	}
}

// A value has its limit, however much room there is.
func TestValueLimit(t *testing.T) {
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		n := fleet(t, simnet.New(), []string{"a"}, nil)[0]
		if err := n.storage.Store(t.Context(), "k", make([]byte, MaxValue)); err != nil {
			t.Errorf("the largest value: %v", err)
		}
		err := n.storage.Store(t.Context(), "k", make([]byte, MaxValue+1))
		if !errors.Is(err, ErrTooLarge) || !strings.Contains(err.Error(), "the value has") {
			t.Errorf("a value that is a byte larger: %v", err)
		}
	})
}

// Nothing is stored at the root, however it is written.
func TestEmptyKeys(t *testing.T) {
	for _, key := range []string{"", "/", "//", ".", "a/.."} {
		if clean, err := keyspace.CleanToStore(key); !errors.Is(err, fs.ErrInvalid) {
			t.Errorf("%q becomes %q, %v", key, clean, err)
		}
	}
	if clean, err := keyspace.CleanToStore("/a"); clean != "a" || err != nil {
		t.Errorf("/a becomes %q, %v", clean, err)
	}
}

// A certificate is complete with all of its parts, and what is deleted of one that was not
// committed deletes nothing else.
func TestBundleParts(t *testing.T) {
	const stem = "certificates/ca/a.test/a.test"
	cert, id := pemCertificate(t, 1)
	_, other := pemCertificate(t, 2)
	for _, test := range []struct {
		name  string
		parts map[string]string // by what their keys end with
		meta  string
		want  int
	}{
		{"all", map[string]string{".key": "k", ".crt": cert}, metaAbout(id, "new"), 3},
		{"no key", map[string]string{".crt": cert}, metaAbout(id, "new"), 0},
		{"no certificate", map[string]string{".key": "k"}, metaAbout(id, "new"), 0},
		{"about another certificate", map[string]string{".key": "k", ".crt": cert}, metaAbout(other, "old"), 0},
	} {
		var b bundle
		for ext, value := range test.parts {
			if !b.hold(stem+ext, []byte(value)) {
				t.Errorf("%s: %s is not held back", test.name, ext)
			}
		}
		if records := b.complete(stem+".json", []byte(test.meta)); len(records) != test.want {
			t.Errorf("%s: %d records are committed, want %d", test.name, len(records), test.want)
		}
	}

	var b bundle
	b.hold(stem+".key", []byte("k"))
	b.hold(stem+".crt", []byte("c"))
	b.commits(b.complete(stem+".json", []byte("{}")), errors.New("injected fault"))
	for _, ext := range []string{".key", ".crt", ".json"} {
		if !b.forget(stem + ext) {
			t.Errorf("after a commit that failed certmagic deletes the old %s", ext)
		}
		if b.forget(stem + ext) {
			t.Errorf("a second deletion of %s is not done", ext)
		}
	}
}

// A command is proposed in the session of its role, of its lock and of this node, or not at all.
func TestCommandsOfOthers(t *testing.T) {
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		nodes := trio(t, simnet.New(), nil)
		n, other := nodes[0], nodes[1]
		own := n.self.Session(n.store.State())
		within := func(on *Node, session uint64) context.Context {
			return on.replica.Fenced(t.Context(), session, state.Fence{Role: keyspace.RolePrefix + "r", Seq: 1})
		}
		for _, test := range []struct {
			name    string
			ctx     context.Context
			session uint64
			want    string // of the error; empty: it takes effect
		}{
			{"of this session", t.Context(), own, ""},
			{"of none", t.Context(), 0, ""},
			{"of a lost session", t.Context(), own - 1, replica.ErrEnded.Error()},
			{"of another node's role", within(other, other.self.Session(other.store.State())), 0, "a tenure of another node"},
			{"of a lost role", within(n, own-1), 0, replica.ErrEnded.Error()},
			{"of a lost lock, in a role of this session", within(n, own), own - 1, replica.ErrEnded.Error()},
		} {
			before := n.store.State().Index
			_, err := n.replica.Writes.Do(test.ctx, state.Command{Session: test.session, Change: state.StoreRecord{Key: "k", Value: []byte(test.name), MaxState: 1 << 20}})
			if test.want == "" && err != nil || test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)) {
				t.Errorf("a command %s: %v, want %q", test.name, err, test.want)
			}
			if proposed := n.store.State().Index > before; proposed != (test.want == "") {
				t.Errorf("a command %s is proposed: %v", test.name, proposed)
			}
		}
	})
}
