package durable

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/hashicorp/raft"
	"go.etcd.io/bbolt"
)

// fill makes a data directory with everything in it, not larger than 64 KiB, and
// returns what it holds. bbolt leaves older versions of its pages in the file.
func fill(t testing.TB, path string, pageSize int) state {
	t.Helper()
	d := lock(t, path)
	file := filepath.Join(path, logName)
	db, err := bbolt.Open(file, 0o600, &bbolt.Options{PageSize: pageSize, NoFreelistSync: true})
	must(t, err)
	must(t, db.Close())
	must(t, markOpening(file, nil))
	must(t, d.WriteFile("identity", []byte("0123456789abcdef")))
	must(t, d.WriteFile("empty", nil))
	l := openTestLog(t, d, false)
	snaps, err := d.OpenSnapshots(l, nil)
	must(t, err)
	must(t, l.SetUint64([]byte(keyTerm), 2))
	must(t, l.StoreLogs(entries(1, 12, 2, 190)))
	must(t, l.StoreLogs(entries(13, 18, 2, 190)))
	must(t, l.SetUint64([]byte(keyTerm), 3))
	must(t, l.SetUint64([]byte(keyVoteTerm), 3))
	must(t, l.Set([]byte(keyCandidate), []byte("a candidate")))
	must(t, l.DeleteRange(17, 18)) // a conflict, overwritten by the same indexes in term 3
	must(t, l.StoreLogs(entries(17, 18, 3, 190)))
	writeSnapshot(t, snaps, 10, 2, "the content of the snapshot")
	must(t, l.DeleteRange(1, 2))
	must(t, l.StoreLog(entry(19, 3, 190)))
	must(t, l.StoreLog(entry(20, 3, 190)))
	must(t, l.Close())
	must(t, d.Close())

	b := fileBytes(t, file)
	m, err := readMeta(fileReader(b), int64(len(b)))
	must(t, err)
	must(t, os.Truncate(file, int64(m.pages)*int64(m.pageSize)))
	s, err := readDir(path)
	must(t, err)
	if s.First != 3 || s.Last != 20 || len(s.Entries) != 18 || s.Entries[17].Term != 3 {
		t.Fatalf("the directory was not filled: %+v", s)
	}
	restore(t, file, b[:int64(m.pages)*int64(m.pageSize)]) // opening wrote
	return s
}

func restore(t testing.TB, file string, b []byte) {
	t.Helper()
	must(t, os.Truncate(file, 0))
	put(t, file, b)
}

func writeSnapshot(t testing.TB, snaps raft.SnapshotStore, index, term uint64, content string) {
	t.Helper()
	conf := raft.Configuration{Servers: []raft.Server{{Suffrage: raft.Voter, ID: "n1", Address: "n1"}, {Suffrage: raft.Nonvoter, ID: "n2", Address: "n2"}}}
	_, trans := raft.NewInmemTransport("n1")
	sink, err := snaps.Create(1, index, term, conf, 1, trans)
	must(t, err)
	_, err = io.WriteString(sink, content)
	must(t, err)
	must(t, sink.Close())
	must(t, sink.Close())
}

// readDir opens a data directory as a node does and reads everything.
func readDir(path string) (s state, err error) {
	d, err := Lock(path)
	if err != nil {
		return s, err
	}
	defer d.Close()
	if s.Small, err = readSmall(d); err != nil {
		return s, err
	}
	l, err := d.OpenLog(LogOptions{})
	if err != nil {
		return s, err
	}
	defer l.Close()
	if err := readSnapshot(d, l, &s); err != nil {
		return s, err
	}
	return s, l.Run(func() error { return s.read(l, l) })
}

func readSmall(d *Dir) (map[string]string, error) {
	small := make(map[string]string)
	for _, name := range []string{"identity", "empty", "missing"} {
		b, err := d.ReadFile(name)
		if err != nil && err != fs.ErrNotExist {
			return nil, err
		}
		small[name] = string(b)
	}
	return small, nil
}

func readSnapshot(d *Dir, l *Log, s *state) error {
	snaps, err := d.OpenSnapshots(l, nil)
	if err != nil {
		return err
	}
	list, err := snaps.List()
	if err != nil || len(list) == 0 {
		return err
	}
	m, r, err := snaps.Open(list[0].ID)
	if err != nil {
		return err
	}
	defer r.Close()
	b, err := io.ReadAll(r)
	s.Snapshot, s.Content = *m, string(b)
	return err
}

// TestEveryBit flips every bit of a data directory, one at a time. Each time the
// directory is refused as damaged or holds exactly what it held. Flips in the log's
// file are judged by the check that OpenLog makes. Those that it lets pass are opened with bbolt, which must find
// the same keys and values, and some of them with OpenLog.
func TestEveryBit(t *testing.T) {
	for _, test := range []struct{ pageSize, step int }{
		{1 << 10, 1}, // the smallest file: the least padding
		{os.Getpagesize(), 37},
	} {
		step := test.step
		if testing.Short() || raceEnabled {
			step = 37
		}
		if step != 1 {
			t.Logf("pages of %d bytes: every %dth bit only", test.pageSize, step)
		}
		path := memDir(t)
		want := fill(t, path, test.pageSize)
		var files []string
		total := 0
		must(t, filepath.WalkDir(path, func(p string, e fs.DirEntry, err error) error {
			if err == nil && e.Type().IsRegular() {
				files = append(files, p)
				total += len(fileBytes(t, p))
			}
			return err
		}))
		if total > 64<<10 || len(files) != 6 {
			t.Fatalf("the directory has %d bytes in %v", total, files)
		}
		for _, file := range files {
			name, _ := filepath.Rel(path, file)
			t.Run(fmt.Sprint(test.pageSize, "/", filepath.Base(name)), func(t *testing.T) {
				var refused, same atomic.Int64
				b := fileBytes(t, file)
				if name == logName {
					flipLog(t, path, b, want, step, &refused, &same)
				} else {
					flipFile(t, path, file, b, want, step, &refused, &same)
				}
				t.Logf("%s: %d bytes; flips refused %d, harmless %d", name, len(b), refused.Load(), same.Load())
				if n := int64((len(b)*8 + step - 1) / step); refused.Load()+same.Load() != n {
					t.Errorf("%d flips were judged, want %d", refused.Load()+same.Load(), n)
				}
			})
		}
	}
}

// flipLog spreads the flips over as many directories as there are processors.
func flipLog(t *testing.T, path string, b []byte, want state, step int, refused, same *atomic.Int64) {
	want.Small, want.Snapshot, want.Content = nil, raft.SnapshotMeta{}, ""
	raw, err := readBolt(filepath.Join(path, logName))
	must(t, err)
	var wg sync.WaitGroup
	workers := runtime.GOMAXPROCS(0)
	for w := range workers {
		dir := memDir(t)
		file := filepath.Join(dir, logName)
		wg.Go(func() {
			own := append([]byte(nil), b...)
			if err := os.WriteFile(file, own, 0o600); err != nil {
				t.Error(err)
				return
			}
			for i := w * step; i < len(b)*8; i += workers * step {
				own[i/8] ^= 1 << (i % 8)
				if _, err := verifyImage(own); err != nil {
					refused.Add(1)
				} else if err := harmless(dir, own, i/8, b[i/8], raw, want, same.Add(1)%37 == 0); err != nil {
					t.Errorf("bit %d of byte %d: %v", i%8, i/8, err)
					return
				}
				own[i/8] = b[i/8]
			}
		})
	}
	wg.Wait()
}

// harmless opens the log with the byte at i as in b, and puts it back to old.
func harmless(dir string, b []byte, i int, old byte, raw string, want state, whole bool) error {
	f, err := os.OpenFile(filepath.Join(dir, logName), os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := f.WriteAt(b[i:i+1], int64(i)); err != nil {
		return err
	}
	got, err := readBolt(f.Name())
	// Other bytes can be the same entry, as in the time that an entry is stored without.
	if err == nil && (whole || got != raw) {
		var s state
		if s, err = readLog(dir); err == nil && !reflect.DeepEqual(want, s) {
			err = errors.New(cmp.Diff(want, s))
		}
		if werr := os.WriteFile(f.Name(), b, 0o600); err == nil {
			err = werr
		}
	}
	if _, werr := f.WriteAt([]byte{old}, int64(i)); err == nil {
		err = werr
	}
	return err
}

// readBolt returns all keys and values that bbolt finds in a file.
func readBolt(file string) (string, error) {
	db, err := bbolt.Open(file, 0o600, &bbolt.Options{ReadOnly: true})
	if err != nil {
		return "", err
	}
	defer db.Close()
	var all []byte
	err = db.View(func(tx *bbolt.Tx) error {
		return tx.ForEach(func(name []byte, b *bbolt.Bucket) error {
			return b.ForEach(func(k, v []byte) error {
				for _, part := range [][]byte{name, k, v} {
					all = append(append(all, part...), byte(len(part)), byte(len(part)>>8))
				}
				return nil
			})
		})
	})
	return string(all), err
}

// readLog opens only the log of a data directory.
func readLog(path string) (s state, err error) {
	l, err := (&Dir{path: path}).OpenLog(LogOptions{})
	if err != nil {
		return s, err
	}
	defer l.Close()
	return s, l.Run(func() error { return s.read(l, l) })
}

func flipFile(t *testing.T, path, file string, b []byte, want state, step int, refused, same *atomic.Int64) {
	d := &Dir{path: path}
	l, err := d.OpenLog(LogOptions{})
	must(t, err)
	defer l.Close()
	for i := 0; i < len(b)*8; i += step {
		b[i/8] ^= 1 << (i % 8)
		put(t, file, b)
		b[i/8] ^= 1 << (i % 8)
		small, err := readSmall(d)
		got := state{Small: small}
		if err == nil {
			err = readSnapshot(d, l, &got)
		}
		if err != nil {
			if _, ok := err.(*DamagedError); !ok {
				t.Fatalf("bit %d of byte %d: %v", i%8, i/8, err)
			}
			refused.Add(1)
			continue
		}
		want := state{Small: want.Small, Snapshot: want.Snapshot, Content: want.Content}
		if !reflect.DeepEqual(want, got) {
			t.Fatalf("bit %d of byte %d:\n%s", i%8, i/8, cmp.Diff(want, got))
		}
		same.Add(1)
	}
	put(t, file, b)
}
