package boltlog

import (
	"errors"
	"fmt"
	"os"
	"time"

	raftboltdb "github.com/hashicorp/raft-boltdb/v2"
	"go.etcd.io/bbolt"
	bbolterrors "go.etcd.io/bbolt/errors"

	"github.com/flotilla-ha/flotilla/internal/durable/diskfile"
)

// ErrLocked is wrapped by the error of Open when another process has the file open.
var ErrLocked = errors.New("the raft log is open in another process")

// Options say how to open a log. Path and File are needed.
type Options struct {
	Path  string   // of the file
	File  *os.File // the file, open: what is checked must be what bbolt maps
	Known State    // the file must hold at least this

	// Each gets every entry in order, while it is not yet known whether the file is right. Nil:
	// nobody looks.
	Each func(*Sealed) error

	// Wrap replaces the store behind the log: for tests. Nil: it is raft-boltdb.
	Wrap func(Store) Store
}

// Open checks a log file as a whole and opens it. The error wraps a diskfile.DamagedError if the
// file is damaged, and ErrLocked or a diskfile.MovedError if another process has it or it was
// moved.
func Open(o Options) (*Log, error) {
	err := diskfile.ReadFromDisk(o.File)
	var c *contents
	if err == nil {
		c, err = checkFile(o.File, o.Each)
	}
	if err == nil {
		err = o.Known.check(c)
	}
	if err != nil {
		return nil, fmt.Errorf("check raft log: %w", diskfile.Named(o.Path, err))
	}
	l, err := connect(o, c)
	if errors.Is(err, bbolterrors.ErrTimeout) {
		err = ErrLocked
	}
	if err == nil {
		if err = diskfile.Leads(o.Path, o.File); err != nil {
			_, _ = guard(l.store.Close)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("open raft log: %w", err)
	}
	return l, nil
}

// boltOptions keep the list of free pages out of the file. bbolt finds them by walking the tree, so
// nothing depends on the content of such a list.
func boltOptions() *bbolt.Options {
	return &bbolt.Options{
		Timeout:        time.Second, // for bbolt's file lock; the directory is locked already
		NoFreelistSync: true,
		FreelistType:   bbolt.FreelistMapType,
	}
}

// connect opens a file that was checked. raft-boltdb then makes one transaction of its own, which
// changes nothing. The vote record announces it.
func connect(o Options, c *contents) (*Log, error) {
	path := o.Path
	if err := markOpening(path, c, voteRecord{}); err != nil {
		return nil, err
	}
	var store *raftboltdb.BoltStore
	_, err := guard(func() (err error) {
		store, err = raftboltdb.New(raftboltdb.Options{Path: path, BoltOptions: boltOptions()})
		return err
	})
	if err != nil {
		return nil, err
	}
	l := &Log{path: path, store: store, tail: c.tail, span: c.span, vote: c.vote}
	if o.Wrap != nil {
		l.store = o.Wrap(store)
	}
	_, err = guard(func() (err error) {
		if l.txid, err = newestTx(path); err == nil && c.open {
			err = l.commit(nil, c.span, c.span)
		}
		return err
	})
	if err != nil {
		_, _ = guard(store.Close)
		return nil, err
	}
	return l, nil
}

// markOpening marks in the vote record that raft-boltdb is about to open the file. On return c is
// up to date. If c is nil it makes the file, with the vote record v.
func markOpening(path string, c *contents, v voteRecord) error {
	_, err := guard(func() error {
		db, err := bbolt.Open(path, 0o600, boltOptions())
		if err != nil {
			return err
		}
		err = db.Update(func(tx *bbolt.Tx) error {
			for _, name := range []string{logsBucket, confBucket} {
				if _, err := tx.CreateBucketIfNotExists([]byte(name)); err != nil {
					return err
				}
			}
			if c != nil {
				v, v.trailer = c.vote, c.tail
			}
			v.opening, v.txid = true, uint64(tx.ID())
			if err := tx.Bucket([]byte(confBucket)).Put([]byte(voteKey), v.encode()); err != nil {
				return err
			}
			if c != nil {
				c.vote = v
			}
			return nil
		})
		if cerr := db.Close(); err == nil {
			err = cerr
		}
		return err
	})
	return err
}

// newestTx returns the number of the newest transaction of a file that bbolt has open.
func newestTx(path string) (uint64, error) {
	f, err := os.Open(path)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		return 0, err
	}
	m, err := readMeta(f, fi.Size())
	return m.txid, err
}

// Create makes a log file without entries. After an error there may be a part of one.
func Create(path string, v Vote, f Front) error {
	err := v.check()
	if err == nil {
		err = markOpening(path, nil, voteRecord{Vote: v, Front: f})
	}
	if err != nil {
		return fmt.Errorf("make an empty log: %w", err)
	}
	return nil
}
