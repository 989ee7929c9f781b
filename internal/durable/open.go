package durable

import (
	"os"
	"time"

	raftboltdb "github.com/hashicorp/raft-boltdb/v2"
	"go.etcd.io/bbolt"
)

// boltOptions keep the list of free pages out of the file: bbolt finds them by walking
// the tree, so nothing depends on their contents.
func boltOptions() *bbolt.Options {
	return &bbolt.Options{
		Timeout:        time.Second, // for bbolt's file lock; the directory is locked already
		NoFreelistSync: true,
		FreelistType:   bbolt.FreelistMapType,
	}
}

// openLog opens a file that has been checked. raft-boltdb then makes one transaction of its
// own, which changes nothing; the vote record announces it.
func openLog(path string, c *contents) (*Log, error) {
	if err := markOpening(path, c); err != nil {
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
	l := &Log{
		path:    path,
		store:   store,
		born:    time.Now(),
		writing: make(chan struct{}, 1),
		tail:    c.tail,
		span:    c.span,
		vote:    c.vote,
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

// markOpening writes the vote record with its mark that raft-boltdb is about to open
// the file, and makes the file if c is nil. On return c is up to date.
func markOpening(path string, c *contents) error {
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
			var v voteRecord
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
