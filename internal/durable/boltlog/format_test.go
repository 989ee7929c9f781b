package boltlog

import (
	"encoding/hex"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hashicorp/raft"

	"github.com/flotilla-ha/flotilla/internal/durable/diskfile"
	"github.com/flotilla-ha/flotilla/internal/durable/disktest"
)

// TestFormat: records are on disks, in these bytes.
func TestFormat(t *testing.T) {
	vote := Vote{HasTerm: true, Term: 3, HasVote: true, VoteTerm: 2, Candidate: "n1"}
	record := voteRecord{txid: 0x11, trailer: 0x10, opening: true, Vote: vote, Front: Front{ID: 0xabcd, From: 6}}
	tr := trailer{txid: 0x12, vote: 0x11, now: span{1, 9, 0xdeadbeef}, next: span{1, 5, 3}}
	sealed := Seal(&raft.Log{Index: 7, Term: 2, Type: raft.LogBarrier, Data: []byte("data"), Extensions: []byte("ext")}, 0x01020304)
	for _, test := range []struct {
		name string
		got  []byte
		want string
	}{
		{"trailer", tr.encode(), "01000000000000001200000000000000110000000000000001000000000000000900000000deadbeef0000000000000001000000000000000500000000000000030cc1b69b"},
		{"vote, version 1", encodeVote1(record), "010700000000000000110000000000000010000000000000000300000000000000026e31740cc978"},
		{"vote", record.encode(), "02070000000000000011000000000000001000000000000000030000000000000002000000000000abcd00000000000000066e312eb141aa"},
		{"entry", sealed.log.Data, "646174610102030446277b03"},
		{"sealed entry", sealed.Append(nil), "000000000000000700000000000000020400000003657874646174610102030446277b03"},
	} {
		if got := hex.EncodeToString(test.got); got != test.want {
			t.Errorf("%s: got %s, want %s", test.name, got, test.want)
		}
	}

	got, err := decodeTrailer(tr.encode())
	must(t, err)
	if got != tr {
		t.Errorf("trailer: got %+v, want %+v", got, tr)
	}
	v, err := decodeVote(record.encode())
	must(t, err)
	if v != record {
		t.Errorf("vote: got %+v, want %+v", v, record)
	}
	v, err = decodeVote(encodeVote1(record))
	must(t, err)
	if record.Front = (Front{}); v != record {
		t.Errorf("vote, version 1: got %+v, want %+v", v, record)
	}
}

// TestWrongVote: a record that has a right checksum, and is none of ours, is refused.
func TestWrongVote(t *testing.T) {
	record := func(version, flags byte, size int) []byte {
		return diskfile.AppendSum(append([]byte{version, flags}, make([]byte, size)...))
	}
	for _, test := range []struct {
		name string
		b    []byte
		ok   bool
	}{
		{"version 1", record(1, 7, 32), true},
		{"version 1, longest", record(1, 7, 32+maxCandidate), true},
		{"version 1, too long", record(1, 7, 33+maxCandidate), false},
		{"version 1, too short", record(1, 7, 31), false},
		{"version 2", record(2, 7, 48), true},
		{"version 2, longest", record(2, 7, 48+maxCandidate), true},
		{"version 2, too long", record(2, 7, 49+maxCandidate), false},
		{"version 2, too short", record(2, 7, 47), false},
		{"version 0", record(0, 7, 48), false},
		{"version 3", record(3, 7, 48), false},
		{"an unknown flag", record(2, 8, 48), false},
		{"nothing", nil, false},
	} {
		_, err := decodeVote(test.b)
		if _, found := errors.AsType[*diskfile.Finding](err); found == test.ok || found != (err != nil) {
			t.Errorf("%s: %v", test.name, err)
		}
	}
}

// TestEntryOfAnotherChain: an entry that is right in itself is refused behind one that it was not
// written behind.
func TestEntryOfAnotherChain(t *testing.T) {
	entries := chain(0, disktest.Entries(1, 10, 1, 50)...)
	entries[5] = chain(1, disktest.Entry(6, 1, 50))[0]
	path := filepath.Join(disktest.MemDir(t), fileName)
	oldFile(t, path, os.Getpagesize(), entries, Vote{}, nil)
	_, err := tryOpen(Options{Path: path})
	disktest.IsDamaged(t, err, path)
	if !strings.Contains(err.Error(), "entry 6 does not belong behind entry 5") {
		t.Errorf("got %v", err)
	}
}

// TestSealed: an entry is what was sealed, and no flipped bit and no other length passes for it.
func TestSealed(t *testing.T) {
	for _, e := range append(disktest.Entries(3, 6, 2, 20), &raft.Log{}, disktest.Entry(1<<63, 1<<62, 0)) {
		s := Seal(e, 0xfffefdfc)
		b := s.Append([]byte("before"))[len("before"):]
		got, ok := DecodeSealed(b)
		if !ok || got.Prev() != 0xfffefdfc || got.Sum() != s.Sum() || got.Index() != e.Index || got.Size() != len(b) {
			t.Fatalf("entry %d is read as %+v, %v", e.Index, got, ok)
		}
		disktest.Diff(t, e, s.Entry())
		disktest.Diff(t, e, got.Entry())
		for i := range len(b) * 8 {
			b[i/8] ^= 1 << (i % 8)
			if _, ok := DecodeSealed(b); ok {
				t.Errorf("entry %d: bit %d was flipped", e.Index, i)
			}
			b[i/8] ^= 1 << (i % 8)
		}
		for n := range b {
			if _, ok := DecodeSealed(b[:n:n]); ok {
				t.Errorf("entry %d: %d of %d bytes are one too", e.Index, n, len(b))
			}
		}
	}
}

// TestOldFile: a file that was made before there were journals is read. One of its deletions, at
// either end, may have been in progress.
func TestOldFile(t *testing.T) {
	entries := chain(9, disktest.Entries(1, 10, 1, 50)...)
	vote := Vote{HasTerm: true, Term: 3, HasVote: true, VoteTerm: 2, Candidate: "a candidate"}
	for _, test := range []struct {
		name       string
		d          *deletion
		base, last uint64
	}{
		{"whole", nil, 0, 10},
		{"beginning announced", &deletion{base: 5, last: 10}, 0, 10},
		{"beginning deleted", &deletion{base: 5, last: 10, done: true}, 5, 10},
		{"end announced", &deletion{base: 0, last: 6}, 0, 10},
		{"end deleted", &deletion{base: 0, last: 6, done: true}, 0, 6},
		{"all announced", &deletion{base: 0, last: 0}, 0, 10},
		{"all deleted", &deletion{base: 0, last: 0, done: true}, 0, 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			path := filepath.Join(disktest.MemDir(t), fileName)
			oldFile(t, path, os.Getpagesize(), entries, vote, test.d)
			want := stateOf(test.base, entries[test.base:test.last], vote, Front{})
			disktest.Diff(t, want, readFile(t, path))
			if c := inspect(t, path); c.open != (test.d != nil) {
				t.Errorf("a deletion is in progress: %v", c.open)
			}
			crashAtOpening(t, path)
			l := openLog(t, path)
			disktest.Diff(t, want, all(t, l))

			// It goes on as a file of today.
			want.Front = Front{ID: 1, From: 2}
			must(t, l.SetVote(vote, want.Front))
			more := chain(l.now().chain, disktest.Entry(test.last+1, 3, 10))
			must(t, l.Append(more))
			want.Last++
			must(t, want.add(more[0]))
			closeLog(t, l)
			disktest.Diff(t, want, readFile(t, path))
			closeLog(t, openLog(t, path))
			disktest.Diff(t, want, readFile(t, path))
		})
	}
}

// AppendSealed makes what Seal and Append make.
func TestAppendSealed(t *testing.T) {
	for i := uint64(1); i < 20; i++ {
		e := disktest.Entry(i, 2, int(i)*7)
		want := Seal(e, 5)
		got, sum := AppendSealed([]byte("before"), e, 5)
		if string(got) != "before"+string(want.Append(nil)) || sum != want.Sum() || SealedSize(e) != want.Size() {
			t.Errorf("entry %d is %x, %x; want %x, %x", i, got, sum, want.Append(nil), want.Sum())
		}
	}
}
