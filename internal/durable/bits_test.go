package durable

import (
	"flag"
	"io"
	"io/fs"
	"path/filepath"
	"reflect"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/hashicorp/raft"

	"github.com/flotilla-ha/flotilla/internal/durable/disktest"
)

// fill makes a data directory with everything in it, and returns what it holds.
func fill(t testing.TB, path string) state {
	t.Helper()
	d := lock(t, path)
	must(t, d.WriteFile("identity", []byte("0123456789abcdef")))
	must(t, d.WriteFile("empty", nil))
	l := openTestLog(t, d, true)
	snaps, err := d.OpenSnapshots(l, nil)
	must(t, err)
	must(t, l.SetUint64([]byte(disktest.KeyTerm), 2))
	must(t, l.StoreLogs(disktest.Entries(1, 12, 2, 190)))
	must(t, l.StoreLogs(disktest.Entries(13, 18, 2, 190)))
	must(t, l.SetUint64([]byte(disktest.KeyTerm), 3))
	must(t, l.SetUint64([]byte(disktest.KeyVoteTerm), 3))
	must(t, l.Set([]byte(disktest.KeyCandidate), []byte("a candidate")))
	must(t, l.DeleteRange(17, 18)) // a conflict, overwritten by the same indexes in term 3
	must(t, l.StoreLogs(disktest.Entries(17, 18, 3, 190)))
	writeSnapshot(t, snaps, 10, 2, "the content of the snapshot")
	must(t, l.DeleteRange(1, 2))
	must(t, l.StoreLog(disktest.Entry(19, 3, 190)))
	must(t, l.StoreLog(disktest.Entry(20, 3, 190)))
	must(t, l.Close())
	must(t, d.Close())

	s, err := readDir(path)
	must(t, err)
	if s.First != 3 || s.Last != 20 || len(s.Entries) != 18 || s.Entries[17].Term != 3 {
		t.Fatalf("the directory was not filled: %+v", s)
	}
	return s
}

func writeSnapshot(t testing.TB, snaps raft.SnapshotStore, index, term uint64, content string) {
	t.Helper()
	conf := raft.Configuration{
		Servers: []raft.Server{
			{Suffrage: raft.Voter, ID: "n1", Address: "n1"},
			{Suffrage: raft.Nonvoter, ID: "n2", Address: "n2"},
		},
	}
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
	if s.Small, err = readAllSmall(d); err != nil {
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
	return s, l.Run(func() error { return s.Read(l, l) })
}

func readAllSmall(d *Dir) (map[string]string, error) {
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

// long makes TestEveryBit flip every bit, and not one of 37.
var long = flag.Bool("long", false, "go through all cases")

// TestEveryBit flips every bit of the small files and snapshots, one at a time. Each time the
// directory is refused as damaged, or holds exactly what it held. Packages boltlog and
// journal do the same for the log.
func TestEveryBit(t *testing.T) {
	step := 1
	if !*long {
		step = 37
		t.Logf("every %dth bit only; -long flips each", step)
	}
	path := disktest.MemDir(t)
	want := fill(t, path)
	var files []string
	must(t, filepath.WalkDir(path, func(p string, e fs.DirEntry, err error) error {
		if err == nil && e.Type().IsRegular() && !isLog(e.Name()) {
			files = append(files, p)
		}
		return err
	}))
	if len(files) != 5 {
		t.Fatalf("the directory has %v", files)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			var refused, same int
			b := disktest.FileBytes(t, file)
			flipFile(t, path, file, b, want, step, &refused, &same)
			t.Logf("%s: %d bytes; flips refused %d, harmless %d", file, len(b), refused, same)
			if n := (len(b)*8 + step - 1) / step; refused+same != n {
				t.Errorf("%d flips were judged, want %d", refused+same, n)
			}
		})
	}
}

func flipFile(t *testing.T, path, file string, b []byte, want state, step int, refused, same *int) {
	d := &Dir{path: path}
	l, err := d.OpenLog(LogOptions{})
	must(t, err)
	defer l.Close()
	for i := 0; i < len(b)*8; i += step {
		b[i/8] ^= 1 << (i % 8)
		disktest.Put(t, file, b)
		b[i/8] ^= 1 << (i % 8)
		small, err := readAllSmall(d)
		got := state{Small: small}
		if err == nil {
			err = readSnapshot(d, l, &got)
		}
		if err != nil {
			if _, ok := err.(*DamagedError); !ok {
				t.Fatalf("bit %d of byte %d: %v", i%8, i/8, err)
			}
			*refused++
			continue
		}
		want := state{Small: want.Small, Snapshot: want.Snapshot, Content: want.Content}
		if !reflect.DeepEqual(want, got) {
			t.Fatalf("bit %d of byte %d:\n%s", i%8, i/8, cmp.Diff(want, got))
		}
		*same++
	}
	disktest.Put(t, file, b)
}
