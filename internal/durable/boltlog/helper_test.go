package boltlog

import (
	"bytes"
	"log/slog"
	"os"
	"path/filepath"
	"testing"

	"go.etcd.io/bbolt"

	"github.com/flotilla-ha/flotilla/internal/durable/diskfile"
	"github.com/flotilla-ha/flotilla/internal/durable/disktest"
)

const fileName = "raft.db"

// newLog makes and opens a log in a new directory.
func newLog(t testing.TB) *Log {
	t.Helper()
	path := filepath.Join(disktest.MemDir(t), fileName)
	must(t, Create(path))
	return openLog(t, path)
}

// openLog opens a log. It fails the test when the log fails.
func openLog(t testing.TB, path string) *Log {
	t.Helper()
	l, err := tryOpen(path, func(err error) { t.Errorf("log failed: %v", err) })
	must(t, err)
	t.Cleanup(func() { _ = l.Close() })
	return l
}

func tryOpen(path string, onFail func(error)) (*Log, error) {
	f, err := diskfile.OpenKept(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return Open(Options{Path: path, File: f, OnFail: onFail, Logger: slog.New(slog.DiscardHandler)})
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// all reads everything that raft could read from a log.
func all(t testing.TB, l *Log) disktest.Log {
	t.Helper()
	var s disktest.Log
	must(t, l.Run(func() error { return s.Read(l, l) }))
	return s
}

// fill makes a log file with everything in it, not larger than 64 KiB, and returns what it holds.
// bbolt leaves older versions of its pages in the file.
func fill(t testing.TB, path string, pageSize int) disktest.Log {
	t.Helper()
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{PageSize: pageSize, NoFreelistSync: true})
	must(t, err)
	must(t, db.Close())
	must(t, Create(path))
	l := openLog(t, path)
	must(t, l.SetUint64([]byte(keyTerm), 2))
	must(t, l.StoreLogs(disktest.Entries(1, 12, 2, 190)))
	must(t, l.StoreLogs(disktest.Entries(13, 18, 2, 190)))
	must(t, l.SetUint64([]byte(keyTerm), 3))
	must(t, l.SetUint64([]byte(keyVoteTerm), 3))
	must(t, l.Set([]byte(keyCandidate), []byte("a candidate")))
	must(t, l.DeleteRange(17, 18)) // a conflict: the same indices follow in term 3
	must(t, l.StoreLogs(disktest.Entries(17, 18, 3, 190)))
	must(t, l.DeleteRange(1, 2))
	must(t, l.StoreLog(disktest.Entry(19, 3, 190)))
	must(t, l.StoreLog(disktest.Entry(20, 3, 190)))
	must(t, l.Close())

	b := disktest.FileBytes(t, path)
	m, err := readMeta(bytes.NewReader(b), int64(len(b)))
	must(t, err)
	size := int64(m.pages) * int64(m.pageSize)
	s, err := readLog(path)
	must(t, err)
	if s.First != 3 || s.Last != 20 || len(s.Entries) != 18 || s.Entries[17].Term != 3 {
		t.Fatalf("the log was not filled: %+v", s)
	}
	must(t, os.Truncate(path, 0)) // opening wrote
	disktest.Put(t, path, b[:size])
	return s
}

// readLog opens a log and reads everything.
func readLog(path string) (s disktest.Log, err error) {
	l, err := tryOpen(path, nil)
	if err != nil {
		return s, err
	}
	defer l.Close()
	return s, l.Run(func() error { return s.Read(l, l) })
}

func verifyImage(b []byte) (*contents, error) { return check(bytes.NewReader(b), int64(len(b)), nil) }
