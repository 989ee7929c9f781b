package boltlog

import (
	"errors"
	"flag"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.etcd.io/bbolt"

	"github.com/flotilla-ha/flotilla/internal/durable/disktest"
)

// long makes TestEveryBit flip every bit, and not one of 101, and TestRandomOperations run longer.
var long = flag.Bool("long", false, "go through all cases")

// TestEveryBit flips every bit of a log file, one at a time. Each time the file is refused as
// damaged, or holds exactly what it held. bbolt opens the files that the check lets pass, and must
// find the same keys and values. Some of them are opened as a log too.
func TestEveryBit(t *testing.T) {
	if testing.Short() {
		t.Skip("a slow test: it runs without -short")
	}
	for _, test := range []struct {
		pageSize, step int
		fill           func(t testing.TB, path string, pageSize int) state
	}{
		{1 << 10, 1, fill}, // the smallest file: the least padding
		{os.Getpagesize(), 37, fill},
		{1 << 10, 1, fillOld},
	} {
		step := test.step
		if !*long {
			step = 101
		}
		if step != 1 {
			t.Logf("pages of %d bytes: every %dth bit only", test.pageSize, step)
		}
		path := filepath.Join(disktest.MemDir(t), fileName)
		want := test.fill(t, path, test.pageSize)
		b := disktest.FileBytes(t, path)
		if len(b) > 64<<10 {
			t.Fatalf("the file has %d bytes", len(b))
		}
		var refused, same atomic.Int64
		flipLog(t, path, b, want, step, &refused, &same)
		t.Logf(
			"pages of %d bytes: %d bytes; flips refused %d, harmless %d",
			test.pageSize,
			len(b),
			refused.Load(),
			same.Load(),
		)
		if n := int64((len(b)*8 + step - 1) / step); refused.Load()+same.Load() != n {
			t.Errorf("%d flips were judged, want %d", refused.Load()+same.Load(), n)
		}
	}
}

// fillOld makes a log file of the older format. A deletion at its beginning was in progress.
func fillOld(t testing.TB, path string, pageSize int) state {
	t.Helper()
	entries := chain(0, disktest.Entries(1, 12, 2, 190)...)
	v := Vote{HasTerm: true, Term: 3, HasVote: true, VoteTerm: 3, Candidate: "a candidate"}
	oldFile(t, path, pageSize, entries, v, &deletion{base: 4, last: 12, done: true})
	trim(t, path)
	return stateOf(4, entries[4:], v, Front{})
}

// flipLog spreads the flips over as many directories as there are processors.
func flipLog(t *testing.T, path string, b []byte, want state, step int, refused, same *atomic.Int64) {
	raw, err := readBolt(path)
	must(t, err)
	var wg sync.WaitGroup
	workers := runtime.GOMAXPROCS(0)
	for w := range workers {
		dir := disktest.MemDir(t)
		file := filepath.Join(dir, fileName)
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

// harmless opens the log with the byte at i as in b, and then puts old there again.
func harmless(dir string, b []byte, i int, old byte, raw string, want state, whole bool) error {
	f, err := os.OpenFile(filepath.Join(dir, fileName), os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := f.WriteAt(b[i:i+1], int64(i)); err != nil {
		return err
	}
	got, err := readBolt(f.Name())
	// Other bytes can mean the same entry: the time of an entry is stored and not used.
	if err == nil && (whole || got != raw) {
		var s state
		if s, err = readLog(f.Name()); err == nil && !reflect.DeepEqual(want, s) {
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
