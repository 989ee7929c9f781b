package durable

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/flotilla-ha/flotilla/internal/durable/disktest"
	"github.com/flotilla-ha/flotilla/internal/durable/snapstore"
)

func TestDamagedSnapshots(t *testing.T) {
	type dirs struct{ snaps, old, new string }
	for _, test := range []struct {
		name   string
		damage func(t *testing.T, d dirs)
		want   string // what the error names; empty: the directory is opened
	}{
		{"none", func(*testing.T, dirs) {}, ""},
		{"older one", func(t *testing.T, d dirs) { must(t, os.Truncate(filepath.Join(d.old, snapstore.StateName), 10)) }, ""},
		{"newest cut", func(t *testing.T, d dirs) { must(t, os.Truncate(filepath.Join(d.new, snapstore.StateName), 50)) }, "new"},
		{"newest without meta", func(t *testing.T, d dirs) { must(t, os.Remove(filepath.Join(d.new, snapstore.MetaName))) }, "new"},
		{"newest without state", func(t *testing.T, d dirs) { must(t, os.Remove(filepath.Join(d.new, snapstore.StateName))) }, "new"},
		{"newest gone", func(t *testing.T, d dirs) { must(t, os.RemoveAll(d.new)) }, "log"},
		{"all gone", func(t *testing.T, d dirs) { must(t, os.RemoveAll(d.snaps)) }, "log"},
		{"meta of the other", func(t *testing.T, d dirs) {
			disktest.Put(t, filepath.Join(d.new, snapstore.MetaName), disktest.FileBytes(t, filepath.Join(d.old, snapstore.MetaName)))
		}, "new"},
		{"unfinished one", func(t *testing.T, d dirs) { must(t, os.Mkdir(filepath.Join(d.snaps, "9-9-9.tmp"), 0o700)) }, ""},
		{"foreign directory", func(t *testing.T, d dirs) { must(t, os.Mkdir(filepath.Join(d.snaps, "copy"), 0o700)) }, "copy"},
	} {
		t.Run(test.name, func(t *testing.T) {
			d := lock(t, disktest.MemDir(t))
			l := openTestLog(t, d, true)
			snaps, err := d.OpenSnapshots(l, nil)
			must(t, err)
			must(t, l.StoreLogs(disktest.Entries(1, 20, 1, 10)))
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
				disktest.IsDamaged(t,
					err,
					map[string]string{"new": p.new, "log": l.Path(), "copy": filepath.Join(p.snaps, "copy")}[test.want],
				)
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
	d := lock(t, disktest.MemDir(t))
	l := openTestLog(t, d, true)
	snaps, err := d.OpenSnapshots(l, nil)
	must(t, err)
	writeSnapshot(t, snaps, 8, 1, "old")
	must(t, l.Close())
	must(t, os.Remove(filepath.Join(d.Path(), logName)))
	_, err = d.OpenLog(LogOptions{Create: true})
	disktest.IsDamaged(t, err, filepath.Join(d.Path(), snapsName))
	must(t, d.RemoveState())
	if _, err := os.Stat(filepath.Join(d.Path(), snapsName)); err == nil || !os.IsNotExist(err) {
		t.Errorf("RemoveState left the snapshots: %v", err)
	}
	must(t, openTestLog(t, d, true).Close())
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

func FuzzMark(f *testing.F) {
	f.Add(Mark{Index: 7, Sum: 1 << 60}.encode())
	f.Add([]byte(markHead))
	f.Fuzz(func(t *testing.T, b []byte) {
		m := decodeMark(b)
		if m != (Mark{}) && string(m.encode()) != string(b) {
			t.Error("two files hold the same mark")
		}
		if again := decodeMark(m.encode()); again != m {
			t.Errorf("%+v is read as %+v", m, again)
		}
	})
}
