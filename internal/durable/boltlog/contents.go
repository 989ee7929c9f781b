package boltlog

import (
	"encoding/binary"
	"io"
	"os"

	"github.com/hashicorp/raft"

	"github.com/flotilla-ha/flotilla/internal/durable/diskfile"
)

// contents is what a checked log file holds.
type contents struct {
	txid uint64 // the newest transaction
	span span
	vote voteRecord
	tail uint64 // the transaction of the trailer; 0: there is none
	open bool   // a deletion was in progress
}

// check checks a log file before bbolt may map it. bbolt trusts what it reads: it panics, faults or
// returns wrong data on a damaged or short file. The error is a Finding, or one of r's. each gets
// every entry in order, while it is not yet known whether the file is right; nil: nobody looks.
//
// Besides the form of bbolt's pages (see image) it checks the checksums of entries and records, and
// that the transaction numbers agree (see the package comment). So no single flipped bit leads to
// other values.
func check(r io.ReaderAt, size int64, each func(*Sealed) error) (*contents, error) {
	im, err := openImage(r, size)
	if err != nil {
		return nil, err
	}
	bs := buckets{each: each}
	err = im.tree(im.root, bucketFlag, func(k, v []byte) error { return bs.add(im, k, v) })
	if err != nil {
		return nil, err
	}
	return bs.result(im.txid)
}

// checkFile is check of an open file.
func checkFile(f *os.File, each func(*Sealed) error) (*contents, error) {
	fi, err := f.Stat()
	if err != nil {
		return nil, err
	}
	return check(f, fi.Size(), each)
}

// buckets collects what the file's two buckets hold while the file is read.
type buckets struct {
	names []string
	dec   entryDecoder
	each  func(*Sealed) error

	votes int
	vote  voteRecord

	first, last uint64 // 0: no entry yet
	sum         uint32 // checksum of the entry at last
	hasTrailer  bool
	trailer     trailer
}

// add takes one element of the root bucket.
func (b *buckets) add(im *image, name, value []byte) error {
	var f func(k, v []byte) error
	switch string(name) {
	case confBucket:
		f = b.conf
	case logsBucket:
		f = b.entry
	default:
		return diskfile.Damaged("it has a bucket %q", name)
	}
	b.names = append(b.names, string(name))
	if len(value) < bucketHeader {
		return diskfile.Damaged("bucket %q is too short", name)
	}
	root, sequence := binary.NativeEndian.Uint64(value), binary.NativeEndian.Uint64(value[8:])
	if sequence != 0 || root != 0 && len(value) != bucketHeader {
		return diskfile.Damaged("bucket %q is wrong", name)
	}
	if root == 0 {
		return im.inline(value[bucketHeader:], f)
	}
	return im.tree(root, 0, f)
}

func (b *buckets) conf(k, v []byte) (err error) {
	if string(k) != voteKey {
		return diskfile.Damaged("it has a setting %q", k)
	}
	b.votes++
	b.vote, err = decodeVote(v)
	return err
}

func (b *buckets) entry(k, v []byte) error {
	if len(k) != 8 {
		return diskfile.Damaged("an entry's key is wrong")
	}
	index := binary.BigEndian.Uint64(k)
	e, err := b.dec.decode(v)
	if err != nil {
		return diskfile.Damaged("entry %d cannot be read", index)
	}
	if index == trailerIndex {
		return b.tail(&e.log)
	}
	if b.last != 0 && index != b.last+1 || index == 0 {
		return diskfile.Damaged("entry %d follows entry %d", index, b.last)
	}
	if !e.check(index) {
		return diskfile.Damaged("the checksum of entry %d is wrong", index)
	}
	if b.last != 0 && e.prev != b.sum {
		return diskfile.Damaged("entry %d does not belong behind entry %d", index, b.last)
	}
	if b.first == 0 {
		b.first = index
	}
	b.last, b.sum = index, e.sum
	if b.each != nil {
		return b.each(e)
	}
	return nil
}

func (b *buckets) tail(e *raft.Log) (err error) {
	if e.Index != trailerIndex {
		return diskfile.Damaged("the record behind the log's entries is wrong")
	}
	b.hasTrailer = true
	b.trailer, err = decodeTrailer(e.Data)
	return err
}

// result decides whether what was found is complete and is the newest state.
func (b *buckets) result(txid uint64) (*contents, error) {
	if len(b.names) != 2 || b.votes != 1 {
		return nil, diskfile.Damaged("its record of term and vote is missing")
	}
	t, v := b.trailer, b.vote
	if !b.hasTrailer && b.last != 0 {
		return nil, diskfile.Damaged("the record behind the log's entries is missing")
	}
	// The newer record is of the newest transaction and names the older one. Two kinds of
	// transaction write neither record: the deletion that a trailer announces, and the one that
	// raft-boltdb makes when it opens a file.
	var newest, other uint64
	extra := false
	switch {
	case t.txid > v.txid:
		newest, other, extra = t.txid, v.txid^t.vote, t.deleting()
	case t.txid < v.txid:
		newest, other, extra = v.txid, t.txid^v.trailer, v.opening
	default:
		return nil, diskfile.Damaged("two records are of one transaction")
	}
	if other != 0 || newest != txid && !(extra && newest+1 == txid) {
		return nil, diskfile.Damaged("a part of it is not of the newest transaction")
	}
	c := &contents{txid: txid, vote: v, tail: t.txid, open: t.deleting()}
	for _, s := range []span{t.now, t.next} {
		if s.empty() && b.last == 0 || s == (span{b.first - 1, b.last, b.sum}) && b.last != 0 {
			c.span = s
			return c, nil
		}
	}
	return nil, diskfile.Damaged("it does not hold the entries %d to %d", t.now.base+1, t.now.last)
}
