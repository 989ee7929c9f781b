package boltlog

import (
	"bytes"
	"encoding/binary"
	"hash/fnv"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/hashicorp/raft"
	raftboltdb "github.com/hashicorp/raft-boltdb/v2"
	"go.etcd.io/bbolt"

	"github.com/flotilla-ha/flotilla/internal/durable/diskfile"
	"github.com/flotilla-ha/flotilla/internal/durable/disktest"
)

// TestBitFlipInLog: bare raft-boltdb returns an entry with a flipped bit and no error.
func TestBitFlipInLog(t *testing.T) {
	const marker = "the command that is flipped"
	flip := func(t *testing.T, file string) {
		b := disktest.FileBytes(t, file)
		flipped := 0
		for i := range b { // in old versions of the page too
			if strings.HasPrefix(string(b[i:min(len(b), i+len(marker))]), marker) {
				b[i+4] ^= 1
				flipped++
			}
		}
		if flipped == 0 {
			t.Fatal("the entry is not in the file")
		}
		disktest.Put(t, file, b)
	}
	e := &raft.Log{Index: 1, Term: 1, Data: []byte(marker)}

	t.Run("raft-boltdb", func(t *testing.T) {
		file := filepath.Join(t.TempDir(), fileName)
		s, err := raftboltdb.NewBoltStore(file)
		must(t, err)
		must(t, s.StoreLog(e))
		must(t, s.Close())
		flip(t, file)
		s, err = raftboltdb.NewBoltStore(file)
		must(t, err)
		defer s.Close()
		var got raft.Log
		if err := s.GetLog(1, &got); err != nil || string(got.Data) == marker {
			t.Errorf("raft-boltdb has fixed this: %v %q", err, got.Data)
		}
	})
	t.Run("boltlog", func(t *testing.T) {
		l := newLog(t)
		store(t, l, e)
		closeLog(t, l)
		file := l.path
		flip(t, file)
		_, err := tryOpen(Options{Path: file})
		disktest.IsDamaged(t, err, file)
		if !strings.Contains(err.Error(), "checksum of entry 1") || !strings.Contains(err.Error(), "remove") {
			t.Errorf("the error does not help: %v", err)
		}
	})
}

// filled returns a log file of some size, and its bytes, cut behind the last page.
func filled(t *testing.T) (file string, b []byte, pageSize int) {
	l := newLog(t)
	for i := uint64(1); i < 60; i += 3 {
		store(t, l, disktest.Entries(i, i+2, 1, 400)...)
	}
	must(t, l.SetVote(Vote{HasTerm: true, Term: 4}, Front{ID: 5, From: 6}))
	closeLog(t, l)
	b, pageSize = trim(t, l.path)
	return l.path, b, pageSize
}

func TestTruncated(t *testing.T) {
	file, b, pageSize := filled(t)
	r := rand.New(rand.NewPCG(1, 1))
	var sizes []int
	for n := 0; n < len(b); n += pageSize {
		sizes = append(sizes, n, n+r.IntN(pageSize), n+80)
	}
	for _, n := range sizes {
		if n >= len(b) {
			continue
		}
		disktest.Put(t, file, b[:n])
		if _, err := tryOpen(Options{Path: file}); err == nil {
			t.Errorf("a log of %d bytes was opened with %d", len(b), n)
		} else {
			disktest.IsDamaged(t, err, file)
		}
		if got := disktest.FileBytes(t, file); len(got) != n {
			t.Errorf("a damaged file was changed: %d bytes, had %d", len(got), n)
		}
	}
	disktest.Put(t, file, b)
	closeLog(t, openLog(t, file))
}

// TestZeroedMeta: bbolt falls back to the other meta page, and so undoes the last commit.
func TestZeroedMeta(t *testing.T) {
	file, b, pageSize := filled(t)
	lost := 0
	for page := range 2 {
		bad := slices.Clone(b)
		clear(bad[page*pageSize : (page+1)*pageSize])
		disktest.Put(t, file, bad)
		db, err := bbolt.Open(file, 0o600, &bbolt.Options{ReadOnly: true})
		must(t, err)
		must(t, db.View(func(tx *bbolt.Tx) error {
			m, err := readMeta(bytes.NewReader(b), int64(len(b)))
			if uint64(tx.ID()) != m.txid {
				lost++
			}
			return err
		}))
		must(t, db.Close())
		_, err = tryOpen(Options{Path: file})
		if err == nil || !strings.Contains(err.Error(), "meta page") {
			t.Errorf("a log without meta page %d was opened: %v", page, err)
		}
	}
	if lost != 1 {
		t.Errorf("bbolt has fixed this: %d of 2 zeroed pages undid a commit", lost)
	}
}

// TestBadSectors overwrites 512 bytes anywhere. The log is refused or has all its entries.
func TestBadSectors(t *testing.T) {
	if testing.Short() {
		t.Skip("a slow test: it runs without -short")
	}
	file, b, _ := filled(t)
	disktest.Put(t, file, b)
	want, err := readLog(file)
	must(t, err)
	r := rand.New(rand.NewPCG(2, 2))
	refused := 0
	for i := range 300 {
		bad := slices.Clone(b)
		at := r.IntN(len(bad)/512) * 512
		switch i % 3 {
		case 0:
			for j := range 512 {
				bad[at+j] = byte(r.Uint32())
			}
		case 1:
			clear(bad[at : at+512])
		default: // a write that went to the wrong place
			from := r.IntN(len(bad)/512) * 512
			copy(bad[at:at+512], b[from:from+512])
		}
		disktest.Put(t, file, bad)
		l, err := tryOpen(Options{Path: file})
		if err != nil {
			disktest.IsDamaged(t, err, file)
			refused++
			continue
		}
		disktest.Diff(t, want, all(t, l))
		closeLog(t, l)
	}
	if refused == 0 || refused == 300 {
		t.Errorf("%d of 300 were refused", refused)
	}
}

// TestStalePage puts an older version of a page in the place of a newer one, as a disk does that
// has lost a write. Checksums alone do not notice it. (The loss of a meta page cannot be noticed:
// the file is as if that transaction had not begun.)
func TestStalePage(t *testing.T) {
	l := newLog(t)
	file := l.path
	store(t, l, disktest.Entries(1, 40, 1, 400)...)
	var versions [][]byte
	for i := uint64(41); i < 61; i++ {
		store(t, l, disktest.Entry(i, 1, 10))
		versions = append(versions, disktest.FileBytes(t, file))
	}
	closeLog(t, l)
	newest := versions[len(versions)-1]
	m, err := readMeta(bytes.NewReader(newest), int64(len(newest)))
	must(t, err)
	refused := 0
	for _, old := range versions[:len(versions)-1] {
		for page := 2; page < len(newest)/m.pageSize; page++ {
			at := page * m.pageSize
			if at+m.pageSize > len(old) || slices.Equal(old[at:at+m.pageSize], newest[at:at+m.pageSize]) {
				continue
			}
			bad := slices.Clone(newest)
			copy(bad[at:at+m.pageSize], old[at:at+m.pageSize])
			c, err := verifyImage(bad)
			if err != nil {
				refused++
			} else if c.span.last != 60 {
				t.Fatalf("page %d: the log ends at %d", page, c.span.last)
			}
		}
	}
	if refused == 0 {
		t.Error("no page was stale")
	}
}

// FuzzCheck feeds the reader of bbolt's format. bbolt must be able to open and read what it lets
// pass.
func FuzzCheck(f *testing.F) {
	path := filepath.Join(disktest.MemDir(f), fileName)
	fill(f, path, 1<<10)
	seed := disktest.FileBytes(f, path)
	f.Add([]byte{}, uint16(0))
	f.Add([]byte{0x20, 0x13, 1}, uint16(0))  // a page's number
	f.Add([]byte{0, 0x28, 0xff}, uint16(17)) // the number of pages, and the file cut
	f.Fuzz(func(t *testing.T, patch []byte, cut uint16) {
		// Small changes in a good file get further than whole files made by the engine.
		b := slices.Clone(seed[:max(0, len(seed)-int(cut))])
		for ; len(patch) >= 3; patch = patch[3:] {
			if at := int(patch[0])<<8 | int(patch[1]); at < len(b) {
				b[at] ^= patch[2]
			}
		}
		fixMetas(b)
		if _, err := verifyImage(b); err != nil {
			if _, ok := err.(*diskfile.Finding); !ok {
				t.Fatalf("an error of memory: %v", err)
			}
			return
		}
		file := filepath.Join(disktest.MemDir(t), fileName)
		disktest.Put(t, file, b)
		if _, err := readBolt(file); err != nil {
			t.Fatal(err)
		}
	})
}

func FuzzDecodeRecords(f *testing.F) {
	f.Add(trailer{txid: 5, vote: 4, now: span{1, 9, 7}, next: span{1, 5, 3}}.encode())
	v := voteRecord{txid: 3, Vote: Vote{HasVote: true, Candidate: "n1"}, Front: Front{ID: 8, From: 9}}
	f.Add(v.encode())
	f.Add(encodeVote1(v))
	f.Add(Seal(disktest.Entry(3, 1, 10), 7).log.Data)
	f.Fuzz(func(t *testing.T, b []byte) {
		b = diskfile.AppendSum(b)
		if r, err := decodeTrailer(b); err == nil {
			if again, err := decodeTrailer(r.encode()); err != nil || again != r {
				t.Errorf("the trailer %+v is read as %+v, %v", r, again, err)
			}
		}
		if v, err := decodeVote(b); err == nil {
			encoded := v.encode()
			if b[0] == 1 {
				encoded = encodeVote1(v)
			}
			if !bytes.Equal(encoded, b) || b[0] == 1 && v.Front != (Front{}) {
				t.Errorf("%x is read as %+v", b, v)
			}
		}
		(&Sealed{log: raft.Log{Index: 1, Data: b}}).check(1)
		if e, err := new(entryDecoder).decode(b); err == nil {
			e.check(1)
		}
	})
}

// FuzzDecodeSealed: whatever passes for a sealed entry is one, and what it is made of makes the
// same bytes again.
func FuzzDecodeSealed(f *testing.F) {
	for i := uint64(3); i < 6; i++ { // one has extensions
		f.Add(Seal(disktest.Entry(i, 2, 20), 7).Append(nil))
	}
	f.Add(Seal(&raft.Log{}, 0).Append(nil))
	f.Add(make([]byte, sealedHead))
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, b := range [][]byte{b, fixSum(b)} {
			s, ok := DecodeSealed(bytes.Clone(b))
			if !ok {
				continue
			}
			if got := s.Append(nil); !bytes.Equal(got, b) || s.Size() != len(b) {
				t.Errorf("%x is read as %x, of size %d", b, got, s.Size())
			}
			again := Seal(s.Entry(), s.Prev())
			if got := again.Append(nil); !bytes.Equal(got, b) || again.Sum() != s.Sum() || again.Index() != s.Index() {
				t.Errorf("%x is sealed again as %x", b, got)
			}
		}
	})
}

// fixSum returns b with the checksum that makes it a sealed entry, if any can.
func fixSum(b []byte) []byte {
	b = bytes.Clone(b)
	n := len(b) - 4
	if n < sealedHead {
		return b
	}
	ext := uint64(binary.BigEndian.Uint32(b[17:]))
	if ext > uint64(n-sealedHead) {
		return b
	}
	data := b[sealedHead+int(ext) : n]
	sum := entrySum(&raft.Log{
		Index: binary.BigEndian.Uint64(b), Term: binary.BigEndian.Uint64(b[8:]), Type: raft.LogType(b[16]),
		Extensions: b[sealedHead : sealedHead+int(ext)],
	}, data)
	binary.BigEndian.PutUint32(b[n:], sum)
	return b
}

// fixMetas corrects the checksums of both meta pages, so that a fuzzer gets past them.
func fixMetas(b []byte) {
	for _, off := range []int{0, 1 << 10} {
		if len(b) >= off+pageHeader+metaSize {
			m := b[off+pageHeader:]
			h := fnv.New64a()
			_, _ = h.Write(m[:metaSize-8])
			binary.NativeEndian.PutUint64(m[56:], h.Sum64())
		}
	}
}
