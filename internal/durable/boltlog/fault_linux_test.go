package boltlog

import (
	"os"
	"strings"
	"testing"

	"github.com/flotilla-ha/flotilla/internal/durable/disktest"
)

// TestFileCutWhileOpen: reading a page that was cut off the mapped file is a SIGBUS, and only fails
// the log. bbolt then holds its locks, and the log is not closed.
func TestFileCutWhileOpen(t *testing.T) {
	for _, test := range []struct {
		name string
		call func(*Log) error
	}{
		{"Get", func(l *Log) error { _, err := l.Get(50); return err }},
		{"Append", func(l *Log) error { return l.Append(chain(l.now().chain, disktest.Entry(101, 1, 10))) }},
		{"Cut", func(l *Log) error { return l.Cut(50) }},
		{"SetVote", func(l *Log) error { return l.SetVote(Vote{HasTerm: true, Term: 9}, Front{}) }},
	} {
		t.Run(test.name, func(t *testing.T) {
			l := newLog(t)
			store(t, l, disktest.Entries(1, 100, 1, 5000)...)
			must(t, os.Truncate(l.path, int64(2*os.Getpagesize())))
			err := test.call(l)
			if err == nil || !strings.HasPrefix(err.Error(), "bbolt: runtime error") {
				t.Fatalf("a file that is gone was used: %v", err)
			}
			if again := test.call(l); again != err {
				t.Errorf("a second time: %v", again)
			}
			for range 2 {
				if _, stuck, err := l.Close(); !stuck || err != nil {
					t.Errorf("stuck %v, %v", stuck, err)
				}
			}
		})
	}
}
