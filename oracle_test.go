package flotilla_test

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/caddyserver/certmagic"
	"github.com/google/go-cmp/cmp"

	"github.com/flotilla-ha/flotilla"
	"github.com/flotilla-ha/flotilla/clustertest"
	"github.com/flotilla-ha/flotilla/internal/synctest"
)

// certmagic's FileStorage is the oracle of Storage: the same random operations go to both, each to
// any node of a cluster, and the answers are equal but for the deviations below. ORACLE_SEED=n runs
// one seed alone, ORACLE_OPS=n sets how many operations a seed has.

// lockingStorage is what both sides are.
type lockingStorage interface {
	certmagic.Storage
	certmagic.TryLocker
}

// answer is what an operation gives, as far as it has to be equal.
type answer struct {
	Err string // see errorKind
	// that of the same write with a context that was over before, which leaves open whether it took
	// effect
	First string
	Yes   bool   // of Exists and TryLock
	Slow  bool   // took more than half a second, of those that do not wait
	Value []byte // nil and empty differ
	Keys  []string
	Stat  *stat
}

// stat is a certmagic.KeyInfo as far as it has to be equal.
type stat struct {
	Echo       bool // the key is as it was given
	Modified   bool // there is a time; the clocks of the two differ
	Size       int64
	IsTerminal bool
}

// errorKind sorts errors as far as certmagic and its users do. Whether one that is none of these is
// EISDIR or EEXIST is all the same.
func errorKind(err error) string {
	switch {
	case err == nil:
		return ""
	case errors.Is(err, fs.ErrNotExist):
		return "not exist"
	case errors.Is(err, context.Canceled):
		return "cancelled"
	case errors.Is(err, context.DeadlineExceeded):
		return "deadline"
	case errors.Is(err, flotilla.ErrTooLarge):
		return "too large"
	}
	return "other"
}

// climbs reports whether a key leads out of the storage.
func climbs(key string) bool {
	clean := path.Clean(strings.TrimLeft(key, "/"))
	return clean == ".." || strings.HasPrefix(clean, "../")
}

// deviation is one way in which Storage differs from FileStorage on purpose.
type deviation struct {
	name string
	call func(w *world, o op) op // what FileStorage is asked instead; nil: the same
	// what Storage answers when FileStorage answers a; nil: the same
	want func(w *world, o op, a answer) answer
	// what has to be done to the files afterwards; nil: nothing
	tidy func(w *world, o op) (deviated bool)
}

// deviations are all of them. Each one has to occur in a run.
func deviations() []deviation {
	ask := func(o op, ok bool, a, b answer) answer {
		if ok {
			return b
		}
		return a
	}
	return []deviation{{
		// FileStorage asked for "../x" leaves its directory.
		name: "a key that leads out of the storage is an error",
		call: func(_ *world, o op) op {
			if !o.locks() && climbs(o.key) {
				o.kind = opNone
			}
			return o
		},
		want: func(_ *world, o op, a answer) answer {
			return ask(o, !o.locks() && o.kind != opExists && climbs(o.key), a, answer{Err: "other"})
		},
	}, {
		// FileStorage makes its own directory a file, if that is not there yet.
		name: "there is no value at the root",
		call: func(_ *world, o op) op {
			if o.kind == opStore && path.Clean("/"+o.key) == "/" {
				o.kind = opNone
			}
			return o
		},
		want: func(_ *world, o op, a answer) answer {
			return ask(o, o.kind == opStore && path.Clean("/"+o.key) == "/", a, answer{Err: "other"})
		},
	}, {
		// FileStorage makes a path of any length, as long as its parts are short.
		name: "a key has MaxName bytes at the most",
		call: func(_ *world, o op) op {
			if len(o.key) > flotilla.MaxName {
				o.kind = opNone
			}
			return o
		},
		want: func(_ *world, o op, a answer) answer {
			return ask(o, len(o.key) > flotilla.MaxName && o.kind != opExists, a, answer{Err: "too large"})
		},
	}, {
		// FileStorage does not look at the context in most places, and takes a free lock for somebody who
		// has gone. In ours a read, which does not wait, does not look at it either, and a write whose
		// caller has gone is an error.
		name: "a context that is over",
		call: func(_ *world, o op) op {
			if o.cancelled && (o.kind == opLock || o.kind == opTryLock) {
				o.kind = opNone
			}
			o.cancelled = false
			return o
		},
		want: func(w *world, o op, a answer) answer {
			switch {
			case !o.cancelled:
			case o.kind == opStore || o.kind == opDelete:
				a.First = "cancelled"
			case o.kind == opLock || o.kind == opTryLock || o.kind == opUnlock && a.Err == "":
				a = answer{Err: "cancelled"}
			}
			return a
		},
	}, {
		// FileStorage answers Exists with true whenever there is an error that is not fs.ErrNotExist.
		name: "Exists is false below a value and of an impossible key",
		want: func(w *world, o op, a answer) answer {
			_, err := os.Stat(w.files.Filename(o.key))
			return ask(o, o.kind == opExists && err != nil, a, answer{Yes: false})
		},
	}, {
		// FileStorage deletes a key with a zero byte in it when there is no directory that it could be
		// in.
		name: "to delete an impossible key is an error",
		want: func(_ *world, o op, a answer) answer {
			return ask(o, o.kind == opDelete && strings.Contains(o.key, "\x00"), a, answer{Err: "other"})
		},
	}, {
		// FileStorage answers ENOTDIR, which is not fs.ErrNotExist, and then certmagic does not obtain a
		// certificate.
		name: "below a value nothing exists",
		want: func(w *world, o op, a answer) answer {
			_, err := os.Stat(w.files.Filename(o.key))
			if o.locks() || !errors.Is(err, syscall.ENOTDIR) || a.Err != "other" {
				return a
			}
			switch o.kind {
			case opLoad, opStat, opList:
				a.Err = "not exist"
			case opDelete:
				a.Err = "" // it is deleted already
			}
			return a
		},
	}, {
		// FileStorage gives keys back with the slash that List was given, under which nobody stored them.
		name: "a leading slash is not repeated by List",
		want: func(_ *world, o op, a answer) answer {
			a.Keys = slices.Clone(a.Keys)
			for i, key := range a.Keys {
				a.Keys[i] = strings.TrimPrefix(key, "/")
			}
			return a
		},
	}, {
		// FileStorage's directories are things of their own, with the size and the time that the file
		// system gives them.
		name: "a directory has neither size nor time",
		want: func(_ *world, o op, a answer) answer {
			if a.Stat != nil && !a.Stat.IsTerminal {
				a.Stat = &stat{Echo: a.Stat.Echo}
			}
			return a
		},
	}, {
		// FileStorage leaves the directory when the last of its files is deleted, or was not stored after
		// all.
		name: "empty directories vanish",
		tidy: func(w *world, o op) (vanished bool) {
			if o.kind != opDelete && o.kind != opStore {
				return false
			}
			for dir := filepath.Dir(w.files.Filename(o.key)); len(dir) >= len(w.root); dir = filepath.Dir(dir) {
				switch err := syscall.Rmdir(dir); err { // not os.Remove, which removes a file as well
				case nil:
					vanished = true
				case syscall.ENOTEMPTY:
					return vanished
				}
			}
			return vanished
		},
	}, {
		// FileStorage tries again for two seconds.
		name: "TryLock answers at once",
		want: func(_ *world, o op, a answer) answer {
			if o.kind == opTryLock && !a.Yes {
				a.Slow = false
			}
			return a
		},
	}, {
		// FileStorage removes anybody's lock.
		name: "Unlock by another node is an error",
		call: func(w *world, o op) op {
			if holder, held := w.holders[o.key]; o.kind == opUnlock && held && holder != o.node {
				o.kind = opNone
			}
			return o
		},
		want: func(w *world, o op, a answer) answer {
			holder, held := w.holders[o.key]
			return ask(o, o.kind == opUnlock && held && holder != o.node, a, answer{Err: "not exist"})
		},
	}, {
		// FileStorage's locks are files in a directory of the same tree, under names that two locks can
		// share. It also leaves goroutines behind that spoil the file if the same lock is taken soon
		// again, so here each holding has a file of its own.
		name: "locks are not keys",
		call: func(w *world, o op) op {
			if o.locks() && o.kind != opNone {
				o.key = hex.EncodeToString([]byte(o.key)) + "." + strconv.Itoa(w.holdings[o.key])
			}
			return o
		},
	}}
}

// world is both sides, and what is known of them.
type world struct {
	t        *testing.T
	nodes    []lockingStorage
	deviates []deviation
	occurred map[string]int // deviations, by name

	resets       int
	root         string // of files
	files, locks *certmagic.FileStorage
	holders      map[string]int // nodes, by lock
	holdings     map[string]int // of each lock that are over
}

func newWorld(t *testing.T, nodes []lockingStorage) *world {
	w := &world{t: t, nodes: nodes, deviates: deviations(), occurred: make(map[string]int)}
	w.reset()
	return w
}

// reset empties both sides.
func (w *world) reset() {
	w.t.Helper()
	if w.root != "" {
		w.release()
	}
	if err := w.nodes[0].Delete(w.t.Context(), ""); err != nil {
		w.t.Fatal(err)
	}
	w.resets++
	dir := w.t.TempDir()
	w.root = filepath.Join(dir, "root")
	w.files = &certmagic.FileStorage{Path: w.root}
	w.locks = &certmagic.FileStorage{Path: filepath.Join(dir, "locks")}
	w.holders, w.holdings = make(map[string]int), make(map[string]int)
}

// release gives up all locks, so that no goroutine is left of FileStorage's.
func (w *world) release() {
	for name, holder := range w.holders {
		// a mutant may have an error here, which is not looked for
		w.nodes[holder].Unlock(w.t.Context(), name)
	}
	if err := os.RemoveAll(w.locks.Path); err != nil {
		w.t.Error(err)
	}
	time.Sleep(10 * time.Second)
}

// run does the operations in order until the answers differ, and returns the number of that one and
// how; -1 if they do not.
func (w *world) run(ops []op) (int, string) {
	for i, o := range ops {
		if diff := w.step(o); diff != "" {
			return i, diff
		}
	}
	return -1, ""
}

// step does one operation on both sides.
func (w *world) step(o op) (diff string) {
	theirs := o
	deviated := make(map[string]bool)
	for _, d := range w.deviates {
		if d.call != nil {
			changed := d.call(w, theirs)
			deviated[d.name] = changed.String() != theirs.String()
			theirs = changed
		}
	}
	var files lockingStorage = w.files
	if theirs.locks() {
		files = w.locks
	}
	holder, held := w.holders[o.key]
	var from, filesFrom lockingStorage // where a lock is handed over
	if held {
		from, filesFrom = w.nodes[holder], files
	}
	want := w.ask(files, filesFrom, theirs)
	known := o // to the deviations, with a key that FileStorage takes
	if !o.locks() {
		known.key = theirs.key
	}
	for _, d := range w.deviates {
		if d.want != nil {
			changed := d.want(w, known, want)
			deviated[d.name] = deviated[d.name] || !cmp.Equal(changed, want)
			want = changed
		}
	}
	for _, d := range w.deviates {
		if d.tidy != nil && d.tidy(w, theirs) {
			deviated[d.name] = true
		}
	}
	for name, yes := range deviated {
		if yes {
			w.occurred[name]++
		}
	}
	got := w.ask(w.nodes[o.node], from, o)

	// What is known of locks follows the oracle's answers: a difference ends the run.
	switch {
	case o.kind == opLock && want.Err == "" || o.kind == opTryLock && want.Yes || o.kind == opHandOver && want.Err == "":
		w.holders[o.key] = o.node
	case o.kind == opUnlock && held && holder == o.node:
		delete(w.holders, o.key)
		w.holdings[o.key]++
	}
	return cmp.Diff(want, got)
}

// ask does one operation on one side. from is where the lock is held, nil if nowhere.
func (w *world) ask(s, from lockingStorage, o op) (a answer) {
	ctx, cancel := context.WithCancel(w.t.Context())
	defer cancel()
	if o.cancelled {
		cancel()
	}
	start := time.Now()
	var err error
	switch o.kind {
	case opStore, opDelete:
		if o.cancelled {
			a.First = errorKind(change(ctx, s, o))
			time.Sleep(time.Second) // it may be under way
			start = time.Now()
			ctx = w.t.Context()
		}
		err = change(ctx, s, o)
	case opLoad:
		var value []byte
		if value, err = s.Load(ctx, o.key); value != nil {
			a.Value = append([]byte{}, value...)
		}
		clear(value) // it is the caller's
	case opExists:
		a.Yes = s.Exists(ctx, o.key)
	case opList:
		if a.Keys, err = s.List(ctx, o.key, o.recursive); len(a.Keys) == 0 {
			a.Keys = nil
		}
	case opStat:
		var info certmagic.KeyInfo
		if info, err = s.Stat(ctx, o.key); err == nil {
			a.Stat = &stat{info.Key == o.key, !info.Modified.IsZero(), info.Size, info.IsTerminal}
		}
	case opTryLock:
		a.Yes, err = s.TryLock(ctx, o.key)
	case opUnlock:
		err = s.Unlock(ctx, o.key)
	case opLock:
		ctx, cancel := context.WithTimeout(ctx, lockPatience)
		defer cancel()
		err = s.Lock(ctx, o.key)
	case opHandOver:
		// else two of FileStorage's goroutines may write one file at the same time, for ever
		time.Sleep(37 * time.Millisecond)
		waiting := make(chan error)
		go func() { waiting <- s.Lock(w.t.Context(), o.key) }()
		if from != nil {
			time.Sleep(100 * time.Millisecond)
			err = from.Unlock(ctx, o.key)
		}
		err = errors.Join(<-waiting, err)
	}
	a.Err = errorKind(err)
	a.Slow = time.Since(start) > lockPatience/2 && o.kind != opLock && o.kind != opHandOver
	if o.locks() && err != nil {
		time.Sleep(100 * time.Millisecond) // a claim is taken back in the background
	}
	return a
}

// change does a Store or a Delete.
func change(ctx context.Context, s lockingStorage, o op) error {
	if o.kind == opDelete {
		return s.Delete(ctx, o.key)
	}
	value := slices.Clone(o.value)
	defer clear(value) // it is the caller's
	return s.Store(ctx, o.key, value)
}

// shrink leaves out of operations, the last of which has shown a difference, what the difference
// does not need. It does not try for ever.
func (w *world) shrink(ops []op) []op {
	tries := 0
	fails := func(ops []op) bool {
		tries++
		w.reset()
		i, _ := w.run(ops)
		return i >= 0
	}
	for n := 1; n < len(ops); n *= 4 { // the shortest end is the cheapest to find
		if end := ops[len(ops)-n:]; fails(end) {
			ops = end
			break
		}
	}
	for chunk := max(len(ops)/2, 1); tries < 200; chunk = max(chunk/2, 1) {
		before := len(ops)
		for at := 0; at < len(ops) && tries < 200; {
			rest := slices.Concat(ops[:at], ops[min(at+chunk, len(ops)):])
			if fails(rest) {
				ops = rest
			} else {
				at += chunk
			}
		}
		if chunk == 1 && len(ops) == before {
			break
		}
	}
	return ops
}

// lockPatience is how long an opLock waits for a lock.
const lockPatience = 1500 * time.Millisecond

// oracleCluster starts nodes that keep nothing on disk.
func oracleCluster(t *testing.T, n int) []lockingStorage {
	t.Helper()
	c := clustertest.New(t, n, func(_ int, cfg *flotilla.Config) { cfg.Dir = "" })
	c.Settle()
	var nodes []lockingStorage
	for _, node := range c.Nodes {
		nodes = append(nodes, node.Storage())
	}
	return nodes
}

func TestStorageAgainstOracle(t *testing.T) {
	flotilla.SkipShort(t)
	synctest.Parallel(t)
	if runtime.GOOS != "linux" {
		t.Skip("the deviations are those from files on Linux; other systems have other errors and other names")
	}
	seeds, count := []uint64{3, rand.Uint64()}, flotilla.Cases(t, 6000, 1000)
	if flotilla.Long() {
		seeds = []uint64{1, 2, 3, rand.Uint64()}
	}
	if s := os.Getenv("ORACLE_SEED"); s != "" {
		seed, err := strconv.ParseUint(s, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		seeds = []uint64{seed}
	}
	if s := os.Getenv("ORACLE_OPS"); s != "" {
		n, err := strconv.Atoi(s)
		if err != nil {
			t.Fatal(err)
		}
		count = n
	}
	occurred := make(map[string]int)
	for _, seed := range seeds {
		t.Run(fmt.Sprintf("seed %d", seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, oracleCluster(t, 3))
				ops := randomOps(rand.New(rand.NewPCG(seed, 1)), len(w.nodes), count)
				if i, diff := w.run(ops); i >= 0 {
					t.Errorf("operation %d of ORACLE_SEED=%d: %v: FileStorage with the deviations (-), Storage (+):\n%s", i, seed, ops[i], diff)
					shortest := w.shrink(ops[:i+1])
					for _, o := range shortest {
						t.Log(o)
					}
				}
				w.release()
				for name, n := range w.occurred {
					occurred[name] += n
				}
			})
		})
	}
	for _, d := range deviations() {
		if occurred[d.name] == 0 && count*len(seeds) > 10_000 && !t.Failed() {
			// the rarest come some ten times in as many
			t.Errorf("no such deviation any more: %s", d.name)
		}
	}
}
