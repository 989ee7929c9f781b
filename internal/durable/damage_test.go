package durable

import (
	"encoding/binary"
	"hash/fnv"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/hashicorp/raft"
	raftboltdb "github.com/hashicorp/raft-boltdb/v2"
	"go.etcd.io/bbolt"
)

// TestBitFlipInLog: bare raft-boltdb returns an entry with a flipped bit and no error.
func TestBitFlipInLog(t *testing.T) {
	const marker = "the command that is flipped"
	flip := func(t *testing.T, file string) {
		b := fileBytes(t, file)
		flipped := 0
		for i := range b { // in old versions of the page too
			if strings.HasPrefix(string(b[i:min(len(b), i+len(marker))]), marker) {
				b[i+4] ^= 1
				flipped++
			}
		}
		if flipped == 0 {
			t.Fatal("the entry is not in the file")
		}
		put(t, file, b)
	}
	e := &raft.Log{Index: 1, Term: 1, Data: []byte(marker)}

	t.Run("raft-boltdb", func(t *testing.T) {
		file := filepath.Join(t.TempDir(), logName)
		s, err := raftboltdb.NewBoltStore(file)
		must(t, err)
		must(t, s.StoreLog(e))
		must(t, s.Close())
		flip(t, file)
		s, err = raftboltdb.NewBoltStore(file)
		must(t, err)
		defer s.Close()
		var got raft.Log
		if err := s.GetLog(1, &got); err != nil || string(got.Data) == marker {
			t.Errorf("raft-boltdb has mended this: %v %q", err, got.Data)
		}
	})
	t.Run("durable", func(t *testing.T) {
		d := lock(t, t.TempDir())
		l := openTestLog(t, d, true)
		must(t, l.StoreLog(e))
		must(t, l.Close())
		file := filepath.Join(d.Path(), logName)
		flip(t, file)
		_, err := d.OpenLog(LogOptions{})
		isDamaged(t, err, file)
		if !strings.Contains(err.Error(), "checksum of entry 1") || !strings.Contains(err.Error(), "remove") {
			t.Errorf("the error does not help: %v", err)
		}
	})
}

// filled returns a directory with a log of some size, and the log file's bytes, cut behind its last page.
func filled(t *testing.T) (dir, file string, b []byte, pageSize int) {
	dir = memDir(t)
	d := lock(t, dir)
	l := openTestLog(t, d, true)
	for i := uint64(1); i < 60; i += 3 {
		must(t, l.StoreLogs(entries(i, i+2, 1, 400)))
	}
	must(t, l.SetUint64([]byte(keyTerm), 4))
	must(t, l.Close())
	must(t, d.Close())
	file = filepath.Join(dir, logName)
	b = fileBytes(t, file)
	m, err := readMeta(fileReader(b), int64(len(b)))
	must(t, err)
	return dir, file, b[:int(m.pages)*m.pageSize], m.pageSize
}

func TestTruncated(t *testing.T) {
	dir, file, b, pageSize := filled(t)
	d := lock(t, dir)
	r := rand.New(rand.NewPCG(1, 1))
	var sizes []int
	for n := 0; n < len(b); n += pageSize {
		sizes = append(sizes, n, n+r.IntN(pageSize), n+80)
	}
	for _, n := range sizes {
		if n >= len(b) {
			continue
		}
		put(t, file, b[:n])
		if _, err := d.OpenLog(LogOptions{}); err == nil {
			t.Errorf("a log of %d bytes was opened with %d", len(b), n)
		} else {
			isDamaged(t, err, file)
		}
		if got := fileBytes(t, file); len(got) != n {
			t.Errorf("a damaged file was changed: %d bytes, had %d", len(got), n)
		}
	}
	put(t, file, b)
	must(t, openTestLog(t, d, false).Close())
}

// TestZeroedMeta: bbolt falls back to the other meta page, and so undoes the last commit.
func TestZeroedMeta(t *testing.T) {
	dir, file, b, pageSize := filled(t)
	lost := 0
	for page := range 2 {
		bad := slices.Clone(b)
		clear(bad[page*pageSize : (page+1)*pageSize])
		put(t, file, bad)
		db, err := bbolt.Open(file, 0o600, &bbolt.Options{ReadOnly: true})
		must(t, err)
		must(t, db.View(func(tx *bbolt.Tx) error {
			m, err := readMeta(fileReader(b), int64(len(b)))
			if uint64(tx.ID()) != m.txid {
				lost++
			}
			return err
		}))
		must(t, db.Close())
		_, err = lock(t, dirOf(t, dir, file, bad)).OpenLog(LogOptions{})
		if err == nil {
			t.Errorf("a log without meta page %d was opened", page)
		}
	}
	if lost != 1 {
		t.Errorf("bbolt has mended this: %d of 2 zeroed pages undid a commit", lost)
	}
}

// dirOf returns a new data directory with one file of another.
func dirOf(t *testing.T, dir, file string, b []byte) string {
	t.Helper()
	to := memDir(t)
	put(t, filepath.Join(to, strings.TrimPrefix(file, dir)), b)
	return to
}

// TestBadSectors overwrites 512 bytes anywhere. The log is refused or has all its entries.
func TestBadSectors(t *testing.T) {
	dir, file, b, _ := filled(t)
	d := lock(t, dir)
	put(t, file, b)
	want, err := readLog(dir)
	must(t, err)
	r := rand.New(rand.NewPCG(2, 2))
	refused := 0
	for i := range 300 {
		bad := slices.Clone(b)
		at := r.IntN(len(bad)/512) * 512
		switch i % 3 {
		case 0:
			for j := range 512 {
				bad[at+j] = byte(r.Uint32())
			}
		case 1:
			clear(bad[at : at+512])
		default: // a write that went to the wrong place
			from := r.IntN(len(bad)/512) * 512
			copy(bad[at:at+512], b[from:from+512])
		}
		put(t, file, bad)
		l, err := d.OpenLog(LogOptions{})
		if err != nil {
			isDamaged(t, err, file)
			refused++
			continue
		}
		diff(t, want, all(t, l))
		must(t, l.Close())
	}
	if refused == 0 || refused == 300 {
		t.Errorf("%d of 300 were refused", refused)
	}
}

// TestStalePage puts an older version of a page in a newer one's place, as a disk
// that lost one write does. Checksums alone do not notice it. (A lost write of a meta page
// cannot be noticed: the file is as if that transaction had not begun.)
func TestStalePage(t *testing.T) {
	dir := memDir(t)
	d := lock(t, dir)
	l := openTestLog(t, d, true)
	file := filepath.Join(dir, logName)
	must(t, l.StoreLogs(entries(1, 40, 1, 400)))
	var versions [][]byte
	for i := uint64(41); i < 61; i++ {
		must(t, l.StoreLog(entry(i, 1, 10)))
		versions = append(versions, fileBytes(t, file))
	}
	must(t, l.Close())
	newest := versions[len(versions)-1]
	m, err := readMeta(fileReader(newest), int64(len(newest)))
	must(t, err)
	refused := 0
	for _, old := range versions[:len(versions)-1] {
		for page := 2; page < len(newest)/m.pageSize; page++ {
			at := page * m.pageSize
			if at+m.pageSize > len(old) || slices.Equal(old[at:at+m.pageSize], newest[at:at+m.pageSize]) {
				continue
			}
			bad := slices.Clone(newest)
			copy(bad[at:at+m.pageSize], old[at:at+m.pageSize])
			c, err := verifyImage(bad)
			if err != nil {
				refused++
			} else if c.span.last != 60 {
				t.Fatalf("page %d: the log ends at %d", page, c.span.last)
			}
		}
	}
	if refused == 0 {
		t.Error("no page was stale")
	}
}

func TestDamagedSnapshots(t *testing.T) {
	type dirs struct{ snaps, old, new string }
	for _, test := range []struct {
		name   string
		damage func(t *testing.T, d dirs)
		want   string // what the error names; empty: the directory is opened
	}{
		{"none", func(*testing.T, dirs) {}, ""},
		{"older one", func(t *testing.T, d dirs) { must(t, os.Truncate(filepath.Join(d.old, stateName), 10)) }, ""},
		{"newest cut", func(t *testing.T, d dirs) { must(t, os.Truncate(filepath.Join(d.new, stateName), 50)) }, "new"},
		{"newest without meta", func(t *testing.T, d dirs) { must(t, os.Remove(filepath.Join(d.new, metaName))) }, "new"},
		{"newest without state", func(t *testing.T, d dirs) { must(t, os.Remove(filepath.Join(d.new, stateName))) }, "new"},
		{"newest gone", func(t *testing.T, d dirs) { must(t, os.RemoveAll(d.new)) }, "log"},
		{"all gone", func(t *testing.T, d dirs) { must(t, os.RemoveAll(d.snaps)) }, "log"},
		{"meta of the other", func(t *testing.T, d dirs) {
			put(t, filepath.Join(d.new, metaName), fileBytes(t, filepath.Join(d.old, metaName)))
		}, "new"},
		{"unfinished one", func(t *testing.T, d dirs) { must(t, os.Mkdir(filepath.Join(d.snaps, "9-9-9.tmp"), 0o700)) }, ""},
		{"foreign directory", func(t *testing.T, d dirs) { must(t, os.Mkdir(filepath.Join(d.snaps, "copy"), 0o700)) }, "copy"},
	} {
		t.Run(test.name, func(t *testing.T) {
			d := lock(t, memDir(t))
			l := openTestLog(t, d, true)
			snaps, err := d.OpenSnapshots(l, nil)
			must(t, err)
			must(t, l.StoreLogs(entries(1, 20, 1, 10)))
			writeSnapshot(t, snaps, 8, 1, "old")
			writeSnapshot(t, snaps, 16, 1, "new")
			must(t, l.DeleteRange(1, 12))
			p := dirs{snaps: filepath.Join(d.Path(), snapsName)}
			left, err := os.ReadDir(p.snaps)
			must(t, err)
			for _, e := range left {
				if strings.HasPrefix(e.Name(), "1-8-") {
					p.old = filepath.Join(p.snaps, e.Name())
				} else {
					p.new = filepath.Join(p.snaps, e.Name())
				}
			}
			test.damage(t, p)
			snaps, err = d.OpenSnapshots(l, nil)
			if test.want != "" {
				isDamaged(t, err, map[string]string{"new": p.new, "log": l.path, "copy": filepath.Join(p.snaps, "copy")}[test.want])
				return
			}
			must(t, err)
			list, err := snaps.List()
			must(t, err)
			if list[0].Index != 16 || list[0].Size != 3 {
				t.Errorf("the newest snapshot is %+v", list[0])
			}
			left, err = os.ReadDir(p.snaps)
			must(t, err)
			if len(left) != len(list) {
				t.Errorf("%d directories for %d snapshots", len(left), len(list))
			}
		})
	}
}

// TestSnapshotsWithoutLog: a new log beside old snapshots would be a node that forgot its vote.
func TestSnapshotsWithoutLog(t *testing.T) {
	d := lock(t, memDir(t))
	l := openTestLog(t, d, true)
	snaps, err := d.OpenSnapshots(l, nil)
	must(t, err)
	writeSnapshot(t, snaps, 8, 1, "old")
	must(t, l.Close())
	must(t, os.Remove(filepath.Join(d.Path(), logName)))
	_, err = d.OpenLog(LogOptions{Create: true})
	isDamaged(t, err, filepath.Join(d.Path(), snapsName))
	must(t, d.RemoveState())
	if _, err := os.Stat(filepath.Join(d.Path(), snapsName)); err == nil || !os.IsNotExist(err) {
		t.Errorf("RemoveState left the snapshots: %v", err)
	}
	must(t, openTestLog(t, d, true).Close())
}

// FuzzCheckFile feeds the reader of bbolt's format. What it lets pass, bbolt must be
// able to open and read.
func FuzzCheckFile(f *testing.F) {
	dir := memDir(f)
	fill(f, dir, 1<<10)
	seed := fileBytes(f, filepath.Join(dir, logName))
	f.Add([]byte{}, uint16(0))
	f.Add([]byte{0x20, 0x13, 1}, uint16(0))  // a page's number
	f.Add([]byte{0, 0x28, 0xff}, uint16(17)) // the number of pages, and the file cut
	f.Fuzz(func(t *testing.T, patch []byte, cut uint16) {
		// Small changes in a good file get further than whole files, which the engine cannot make smaller.
		b := slices.Clone(seed[:max(0, len(seed)-int(cut))])
		for ; len(patch) >= 3; patch = patch[3:] {
			if at := int(patch[0])<<8 | int(patch[1]); at < len(b) {
				b[at] ^= patch[2]
			}
		}
		fixMetas(b)
		if _, err := verifyImage(b); err != nil {
			if _, ok := err.(*damage); !ok {
				t.Fatalf("an error of memory: %v", err)
			}
			return
		}
		file := filepath.Join(memDir(t), logName)
		put(t, file, b)
		if _, err := readBolt(file); err != nil {
			t.Fatal(err)
		}
	})
}

func FuzzDecodeFile(f *testing.F) {
	f.Add(encodeFile([]byte("data")))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		if data, err := decodeFile(b); err == nil && string(encodeFile(data)) != string(b) {
			t.Error("two files hold the same data")
		}
	})
}

func FuzzDecodeRecords(f *testing.F) {
	f.Add(trailer{txid: 5, vote: 4, now: span{1, 9, 7}, next: span{1, 5, 3}}.encode())
	f.Add(voteRecord{txid: 3, hasVote: true, candidate: []byte("n1")}.encode())
	e, _ := seal(entry(3, 1, 10), 7)
	f.Add(e.Data)
	f.Fuzz(func(t *testing.T, b []byte) {
		b = appendSum(b)
		if r, err := decodeTrailer(b); err == nil && len(r.encode()) != len(b) {
			t.Error("a trailer changed its length")
		}
		if v, err := decodeVote(b); err == nil && string(v.encode()) != string(b) {
			t.Error("two records are the same vote")
		}
		unseal(&raft.Log{Index: 1, Data: b}, 1)
		_, _ = new(entryDecoder).decode(b)
	})
}

// fixMetas makes the checksums of both meta pages right, so that a fuzzer gets behind them.
func fixMetas(b []byte) {
	for _, off := range []int{0, 1 << 10} {
		if len(b) >= off+pageHeader+metaSize {
			m := b[off+pageHeader:]
			h := fnv.New64a()
			_, _ = h.Write(m[:metaSize-8])
			binary.NativeEndian.PutUint64(m[56:], h.Sum64())
		}
	}
}
