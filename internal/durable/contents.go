package durable

import (
	"encoding/binary"

	"github.com/hashicorp/raft"
)

// contents is what a checked log file holds.
type contents struct {
	txid uint64 // the newest transaction
	span span
	vote voteRecord
	tail uint64 // the transaction of the trailer; 0: there is none
	open bool   // a deletion was under way
}

// buckets collects what the file's two buckets hold while the file is read.
type buckets struct {
	names []string
	dec   entryDecoder
	each  func(*raft.Log) error

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
		return damaged("it has a bucket %q", name)
	}
	b.names = append(b.names, string(name))
	if len(value) < bucketHeader {
		return damaged("bucket %q is too short", name)
	}
	root, sequence := binary.NativeEndian.Uint64(value), binary.NativeEndian.Uint64(value[8:])
	if sequence != 0 || root != 0 && len(value) != bucketHeader {
		return damaged("bucket %q is wrong", name)
	}
	if root == 0 {
		return im.inline(value[bucketHeader:], f)
	}
	return im.tree(root, 0, f)
}

func (b *buckets) conf(k, v []byte) (err error) {
	if string(k) != voteKey {
		return damaged("it has a setting %q", k)
	}
	b.votes++
	b.vote, err = decodeVote(v)
	return err
}

func (b *buckets) entry(k, v []byte) error {
	if len(k) != 8 {
		return damaged("an entry's key is wrong")
	}
	index := binary.BigEndian.Uint64(k)
	e, err := b.dec.decode(v)
	if err != nil {
		return damaged("entry %d cannot be read", index)
	}
	if index == trailerIndex {
		return b.tail(e)
	}
	if b.last != 0 && index != b.last+1 || index == 0 {
		return damaged("entry %d follows entry %d", index, b.last)
	}
	prev, sum, ok := unseal(e, index)
	if !ok {
		return damaged("the checksum of entry %d is wrong", index)
	}
	if b.last != 0 && prev != b.sum {
		return damaged("entry %d does not belong behind entry %d", index, b.last)
	}
	if b.first == 0 {
		b.first = index
	}
	b.last, b.sum = index, sum
	if b.each != nil {
		return b.each(e)
	}
	return nil
}

func (b *buckets) tail(e *raft.Log) (err error) {
	if e.Index != trailerIndex {
		return damaged("the record behind the log's entries is wrong")
	}
	b.hasTrailer = true
	b.trailer, err = decodeTrailer(e.Data)
	return err
}

// result decides whether what was found is complete and is the newest state.
func (b *buckets) result(txid uint64) (*contents, error) {
	if len(b.names) != 2 || b.votes != 1 {
		return nil, damaged("its record of term and vote is missing")
	}
	t, v := b.trailer, b.vote
	if !b.hasTrailer && b.last != 0 {
		return nil, damaged("the record behind the log's entries is missing")
	}
	// The newer record is of the newest transaction and names the older one. Two kinds
	// of transaction write neither: the deletion that a trailer announces, and the one
	// that raft-boltdb makes when it opens a file.
	var newest, other uint64
	extra := false
	switch {
	case t.txid > v.txid:
		newest, other, extra = t.txid, v.txid^t.vote, t.deleting()
	case t.txid < v.txid:
		newest, other, extra = v.txid, t.txid^v.trailer, v.opening
	default:
		return nil, damaged("two records are of one transaction")
	}
	if other != 0 || newest != txid && !(extra && newest+1 == txid) {
		return nil, damaged("a part of it is not of the newest transaction")
	}
	c := &contents{txid: txid, vote: v, tail: t.txid, open: t.deleting()}
	for _, s := range []span{t.now, t.next} {
		if s.empty() && b.last == 0 || s == (span{b.first - 1, b.last, b.sum}) && b.last != 0 {
			c.span = s
			return c, nil
		}
	}
	return nil, damaged("it does not hold the entries %d to %d", t.now.base+1, t.now.last)
}
