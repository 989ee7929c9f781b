package journal

import (
	"errors"
	"flag"
	"path/filepath"
	"slices"
	"testing"

	"github.com/flotilla-ha/flotilla/internal/durable/diskfile"
	"github.com/flotilla-ha/flotilla/internal/durable/disktest"
)

// long makes TestEveryBit flip every bit, and not one of 149.
var long = flag.Bool("long", false, "go through all cases")

// segmentBytes returns the bytes of the first segment of a journal with batches up to last, and the
// segment.
func segmentBytes(t testing.TB, last int) (*segment, []byte) {
	t.Helper()
	j, dir := create(t, Options{})
	fill(t, j, 1, last)
	return j.segs[0], disktest.FileBytes(t, filepath.Join(dir, nameOf(1)))
}

// scanBytes reads a segment from memory, and returns how many batches it has.
func scanBytes(s *segment, b []byte) (r *scan, batches int, err error) {
	r = &scan{segment: s, b: b, at: 1, any: true}
	err = r.run(func(int, []byte) error { batches++; return nil })
	return r, batches, err
}

// TestEveryBit flips every bit of a segment, one at a time: each flip is noticed.
func TestEveryBit(t *testing.T) {
	if testing.Short() {
		t.Skip("a slow test: it runs without -short")
	}
	step := 1
	if !*long {
		step = 149
		t.Logf("every %dth bit only; -long flips each", step)
	}
	for _, last := range []int{20, 60} { // the second has an end, because it is full
		s, b := segmentBytes(t, last)
		for bit := 0; bit < len(b)*8; bit += step {
			b[bit/8] ^= 1 << (bit % 8)
			_, _, err := scanBytes(s, b)
			if _, ok := errors.AsType[*diskfile.Finding](err); !ok {
				t.Fatalf("bit %d of byte %d: %v", bit%8, bit/8, err)
			}
			b[bit/8] ^= 1 << (bit % 8)
		}
	}
}

// TestEverySector replaces every sector by zeros, by another one and by noise. Only one change is
// not noticed: a sector of the newest batch that becomes zero is what a torn write leaves.
func TestEverySector(t *testing.T) {
	s, good := segmentBytes(t, 20)
	whole, batches, err := scanBytes(s, good)
	must(t, err)
	if batches != 20 {
		t.Fatalf("%d batches", batches)
	}
	newest := whole.at - sectors(batchHead+len(body(20)))
	for at := range s.sectors() {
		sector := func(b []byte) []byte { return b[at*sectorSize:][:sectorSize] }
		for name, change := range map[string]func(b []byte){
			"zero":  func(b []byte) { clear(sector(b)) },
			"other": func(b []byte) { copy(sector(b), good[(at+3)%40*sectorSize:][:sectorSize]) },
			"noise": func(b []byte) {
				for i := range sector(b) {
					sector(b)[i] = byte(7*i + at)
				}
			},
		} {
			bad := slices.Clone(good)
			change(bad)
			if slices.Equal(bad, good) {
				continue
			}
			r, n, err := scanBytes(s, bad)
			if name == "zero" && at >= newest {
				if err != nil || n != 19 || r.torn == 0 && whole.at-newest > 1 {
					t.Errorf("sector %d: %d batches, %d torn sectors, %v", at, n, r.torn, err)
				}
				continue
			}
			if _, ok := errors.AsType[*diskfile.Finding](err); !ok {
				t.Errorf("sector %d, %s: %d batches, %v", at, name, n, err)
			}
		}
	}
}

// FuzzScan reads segments that are changed in places.
func FuzzScan(f *testing.F) {
	s, good := segmentBytes(f, 20)
	f.Add([]byte{}, false)
	f.Add([]byte{2, 1, 0xff}, true)
	f.Fuzz(func(t *testing.T, patch []byte, sums bool) {
		b := slices.Clone(good)
		for ; len(patch) >= 3; patch = patch[3:] {
			b[int(patch[0])<<8|int(patch[1])] ^= patch[2]
		}
		for at := 0; sums && at < s.sectors(); at++ { // so that the fuzzer gets past the checksums
			if sector := b[at*sectorSize:][:sectorSize]; !isZero(sector) {
				s.sealSector(sector, at)
			}
		}
		_, _, err := scanBytes(s, b)
		if _, ok := errors.AsType[*diskfile.Finding](err); err != nil && !ok {
			t.Fatal(err)
		}
	})
}
