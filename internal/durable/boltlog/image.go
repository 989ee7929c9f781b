package boltlog

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/fnv"
	"io"
	"math/bits"

	"github.com/flotilla-ha/flotilla/internal/durable/diskfile"
)

// Layout of a bbolt file, version 2, in the machine's own byte order: pages of one
// size; page 0 and 1 are metas, the others belong to a tree or are free.
//
//	page    id u64, flags u16, count u16, overflow u32, then count elements, then keys and values
//	branch  pos u32, key size u32, page u64
//	leaf    flags u32, pos u32, key size u32, value size u32
//	meta    magic u32, version u32, page size u32, flags u32, root page u64, root sequence u64,
//	        freelist u64, pages in use u64, transaction u64, FNV-1a checksum u64
//	bucket  root page u64 (0: a page follows in place), sequence u64
const (
	pageHeader   = 16
	metaSize     = 64
	bucketHeader = 16
	branchElem   = 16
	leafElem     = 16

	branchFlag = 0x01
	leafFlag   = 0x02
	metaFlag   = 0x04
	bucketFlag = 0x01

	boltMagic   = 0xED0CDAED
	boltVersion = 2
	noFreelist  = 1<<64 - 1

	minPageSize = 1 << 10 // what bbolt looks for
	maxPageSize = 1 << 16
	maxDepth    = 32
)

type meta struct {
	pageSize int
	root     uint64
	freelist uint64
	pages    uint64 // number of pages in use or free; bbolt never looks behind them
	txid     uint64
}

// image reads a bbolt file without mapping it.
//
// bbolt writes each page in one way only: elements without gaps, in order, as few pages as they
// need, zeros if there are none. A page that is not exactly so is damaged.
type image struct {
	r io.ReaderAt
	meta
	seen []uint64 // bit set of the pages that were reached
}

// openImage reads the meta pages of a bbolt file.
func openImage(r io.ReaderAt, size int64) (*image, error) {
	m, err := readMeta(r, size)
	if err != nil {
		return nil, err
	}
	if m.pages < 4 || m.pages > uint64(size)/uint64(m.pageSize) {
		return nil, diskfile.Damaged("it is %d bytes long, but has %d pages of %d bytes", size, m.pages, m.pageSize)
	}
	return &image{r: r, meta: m, seen: make([]uint64, m.pages/64+1)}, nil
}

// readMeta returns the newest meta. Both must be valid and hold consecutive transactions: bbolt
// writes both when it makes a file (ours gets its name only after that), and transaction n
// overwrites the meta of n-2, after it has synced its data. A meta is 64 bytes in the page's first
// 512, so it lies in one sector, and a crash leaves the old one or the new one. An invalid meta is
// hence damage. bbolt would fall back to the other, which silently undoes a commit.
func readMeta(r io.ReaderAt, size int64) (meta, error) {
	m0, err := parseMeta(r, size, 0, 0)
	if err != nil {
		return meta{}, err
	}
	m1, err := parseMeta(r, size, int64(m0.pageSize), 1)
	if err != nil {
		return meta{}, err
	}
	newest := m0
	if m1.txid > m0.txid {
		newest = m1
	}
	switch {
	case m0.pageSize != m1.pageSize:
		return meta{}, diskfile.Damaged("its meta pages disagree")
	case m0.txid%2 != 0 || m1.txid != m0.txid+1 && m0.txid != m1.txid+1:
		return meta{}, diskfile.Damaged("its meta pages are of transactions %d and %d", m0.txid, m1.txid)
	case newest.freelist != noFreelist:
		return meta{}, diskfile.Damaged("it has a free list")
	}
	return newest, nil
}

func parseMeta(r io.ReaderAt, size, off int64, id uint64) (meta, error) {
	var b [pageHeader + metaSize]byte
	if off+int64(len(b)) > size {
		return meta{}, diskfile.Damaged("it is only %d bytes long", size)
	}
	if err := readAt(r, b[:], off); err != nil {
		return meta{}, err
	}
	e, m := binary.NativeEndian, b[pageHeader:]
	h := fnv.New64a()
	_, _ = h.Write(m[:metaSize-8])
	if e.Uint64(b[0:]) != id || e.Uint16(b[8:]) != metaFlag || e.Uint16(b[10:]) != 0 || e.Uint32(b[12:]) != 0 ||
		e.Uint32(m[0:]) != boltMagic || e.Uint32(m[4:]) != boltVersion || e.Uint64(m[56:]) != h.Sum64() {
		return meta{}, diskfile.Damaged("meta page %d is wrong", id)
	}
	ps := e.Uint32(m[8:])
	if ps < minPageSize || ps > maxPageSize || bits.OnesCount32(ps) != 1 {
		return meta{}, diskfile.Damaged("its page size is %d", ps)
	}
	return meta{
		pageSize: int(ps),
		root:     e.Uint64(m[16:]),
		freelist: e.Uint64(m[32:]),
		pages:    e.Uint64(m[40:]),
		txid:     e.Uint64(m[48:]),
	}, nil
}

// readAt fills b; a file that is shorter than it said is damaged.
func readAt(r io.ReaderAt, b []byte, off int64) error {
	n, err := r.ReadAt(b, off)
	if n == len(b) {
		return nil
	}
	if errors.Is(err, io.EOF) {
		return diskfile.Damaged("it ends at byte %d", off+int64(n))
	}
	return err
}

// tree walks the tree below a root page and hands every key and value to f, in order. Every element
// of a leaf must have the given flags.
func (im *image) tree(root uint64, flags uint32, f func(k, v []byte) error) error {
	w := &walk{im: im, flags: flags, f: f}
	return w.page(root, nil, 0)
}

type walk struct {
	im    *image
	flags uint32
	f     func(k, v []byte) error
	last  []byte // the newest key, to see that they ascend
}

// page visits a page. first is its first key as the branch above it says; nil at the root. bbolt
// finds a page in its branch by that key when it rewrites the page, so both must be the same.
func (w *walk) page(id uint64, first []byte, depth int) error {
	if depth > maxDepth {
		return diskfile.Damaged("its tree is too deep")
	}
	p, flags, err := w.im.page(id)
	if err != nil {
		return err
	}
	if flags == branchFlag && len(p) == 0 {
		return diskfile.Damaged("page %d is empty", id)
	}
	for i, el := range p {
		if i == 0 && first != nil && !bytes.Equal(el.key, first) {
			return diskfile.Damaged("page %d does not begin with its key", id)
		}
		if flags == branchFlag {
			if err := w.page(el.page, el.key, depth+1); err != nil {
				return err
			}
			continue
		}
		if err := w.leaf(id, el); err != nil {
			return err
		}
	}
	if first != nil && len(p) == 0 {
		return diskfile.Damaged("page %d is empty", id)
	}
	return nil
}

func (w *walk) leaf(id uint64, el element) error {
	if el.flags != w.flags {
		return diskfile.Damaged("page %d has an element of another kind", id)
	}
	if w.last != nil && bytes.Compare(w.last, el.key) >= 0 {
		return diskfile.Damaged("the keys of page %d are not in order", id)
	}
	w.last = el.key
	return w.f(el.key, el.value)
}

// inline walks a page that is stored in its bucket's value.
func (im *image) inline(b []byte, f func(k, v []byte) error) error {
	if len(b) < pageHeader {
		return diskfile.Damaged("a bucket is too short")
	}
	els, flags, used, err := parsePage(b, 0)
	if err != nil {
		return err
	}
	if flags != leafFlag || used != len(b) || binary.NativeEndian.Uint32(b[12:]) != 0 {
		return diskfile.Damaged("a bucket's page is wrong")
	}
	w := &walk{im: im, f: f}
	for _, el := range els {
		if err := w.leaf(0, el); err != nil {
			return err
		}
	}
	return nil
}

type element struct {
	flags uint32
	page  uint64
	key   []byte
	value []byte
}

// page reads a page with its overflow and records that it was reached.
func (im *image) page(id uint64) ([]element, uint16, error) {
	if id < 2 || id >= im.pages {
		return nil, 0, diskfile.Damaged("page %d is outside the file", id)
	}
	var head [pageHeader]byte
	off := int64(id) * int64(im.pageSize)
	if err := readAt(im.r, head[:], off); err != nil {
		return nil, 0, err
	}
	over := uint64(binary.NativeEndian.Uint32(head[12:]))
	if over >= im.pages-id {
		return nil, 0, diskfile.Damaged("page %d reaches beyond the file", id)
	}
	for i := id; i <= id+over; i++ {
		if im.seen[i/64]&(1<<(i%64)) != 0 {
			return nil, 0, diskfile.Damaged("page %d is used twice", i)
		}
		im.seen[i/64] |= 1 << (i % 64)
	}
	b := make([]byte, (int(over)+1)*im.pageSize)
	if err := readAt(im.r, b, off); err != nil {
		return nil, 0, err
	}
	els, flags, used, err := parsePage(b, id)
	if err != nil {
		return nil, 0, err
	}
	if need := (used + im.pageSize - 1) / im.pageSize; need != int(over)+1 {
		return nil, 0, diskfile.Damaged("page %d takes %d pages and needs %d", id, over+1, need)
	}
	// A count that became zero would hide the elements.
	if len(els) == 0 && len(bytes.Trim(b[pageHeader:], "\x00")) != 0 {
		return nil, 0, diskfile.Damaged("page %d is empty, but not zero", id)
	}
	return els, flags, nil
}

// parsePage returns the elements of a page and the number of bytes that they take.
func parsePage(b []byte, id uint64) (els []element, flags uint16, used int, err error) {
	e := binary.NativeEndian
	flags = e.Uint16(b[8:])
	count := int(e.Uint16(b[10:]))
	if e.Uint64(b[0:]) != id || flags != branchFlag && flags != leafFlag {
		return nil, 0, 0, diskfile.Damaged("page %d is not what it should be", id)
	}
	used = pageHeader + count*leafElem // a branch's elements are as large
	if used > len(b) {
		return nil, 0, 0, diskfile.Damaged("page %d has too many elements", id)
	}
	els = make([]element, count)
	for i := range els {
		at := pageHeader + i*leafElem
		h := b[at : at+leafElem]
		var pos, ksize, vsize uint32
		if flags == branchFlag {
			pos, ksize, els[i].page = e.Uint32(h[0:]), e.Uint32(h[4:]), e.Uint64(h[8:])
		} else {
			els[i].flags, pos, ksize, vsize = e.Uint32(h[0:]), e.Uint32(h[4:]), e.Uint32(h[8:]), e.Uint32(h[12:])
		}
		room := uint64(len(b) - used)
		if uint64(pos) != uint64(used-at) || ksize == 0 || uint64(ksize)+uint64(vsize) > room {
			return nil, 0, 0, diskfile.Damaged("element %d of page %d is wrong", i, id)
		}
		els[i].key = b[used : used+int(ksize)]
		used += int(ksize)
		els[i].value = b[used : used+int(vsize)]
		used += int(vsize)
	}
	return els, flags, used, nil
}
