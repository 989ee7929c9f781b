package boltlog

import (
	"os"

	"github.com/flotilla-ha/flotilla/internal/durable/diskfile"
)

// State is the newest state of a log that this process knows to be on disk. A file that holds less
// is not what the process wrote. The zero State knows nothing.
type State struct {
	txid uint64 // the newest transaction
	span span
	vote voteRecord
}

// check reports whether a log file holds at least the state. A transaction that failed may be there
// all the same.
func (s State) check(c *contents) error {
	switch {
	case c.txid < s.txid:
		return diskfile.Damaged("its newest transaction is %d, and this process has written %d", c.txid, s.txid)
	case c.txid == s.txid && c.span != s.span && !c.open:
		return diskfile.Damaged(
			"it ends with entry %d, and this process has written entry %d",
			c.span.last,
			s.span.last,
		)
	case c.vote.Term < s.vote.Term:
		return diskfile.Damaged("its term is %d, and this process has written %d", c.vote.Term, s.vote.Term)
	}
	return nil
}

// Check checks a log file with plain reads, and that it holds at least the state. The error is a
// diskfile.Finding, or the system's.
func (s State) Check(f *os.File) error {
	c, err := checkFile(f, nil)
	if err != nil {
		return err
	}
	return s.check(c)
}

// Summary is what a log file holds.
type Summary struct {
	Base, Last uint64 // the entries are those from Base+1 to Last
	Vote       Vote
	Front      Front
	Bytes      int64 // size of the file
}

// Read checks a log file with plain reads. each gets every entry in order, while it is not yet
// known whether the file is right; nil: nobody looks. The error is a diskfile.Finding, the
// system's, or each's.
func Read(path string, each func(*Sealed) error) (Summary, error) {
	f, err := os.Open(path)
	if err != nil {
		return Summary{}, err
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		return Summary{}, err
	}
	c, err := checkFile(f, each)
	if err != nil {
		return Summary{}, err
	}
	return Summary{c.span.base, c.span.last, c.vote.Vote, c.vote.Front, fi.Size()}, nil
}
