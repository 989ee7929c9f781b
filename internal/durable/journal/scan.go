package journal

import (
	"io"

	"github.com/flotilla-ha/flotilla/internal/durable/diskfile"
)

// scan reads one segment.
type scan struct {
	*segment
	b    []byte   // the file
	end  Position // of what was read
	at   int      // the sector behind it
	any  bool     // the first batch may have any number
	done bool     // the last batch says that the next segment goes on
	torn int      // how many sectors behind at are to be made zero, because a write was torn
}

// read reads the segment, which follows end; or which is the first, if any is true. each gets the
// content of every batch, and the sector where it begins. Errors are a diskfile.DamagedError, the
// system's or each's.
func (s *segment) read(end Position, any bool, each func(at int, body []byte) error) (*scan, error) {
	b := make([]byte, s.size)
	if _, err := io.ReadFull(io.NewSectionReader(s.file, 0, s.size), b); err != nil {
		return nil, err
	}
	r := &scan{segment: s, b: b, end: end, at: 1, any: any}
	if err := r.run(each); err != nil {
		return nil, diskfile.Named(s.path, err)
	}
	r.b = nil
	return r, nil
}

// run reads the bytes of the segment. Its error is a diskfile.Finding, or each's.
func (r *scan) run(each func(at int, body []byte) error) error {
	if err := r.checkHead(r.sector(0)); err != nil {
		return err
	}
	for !r.done && r.at < r.sectors() && !isZero(r.sector(r.at)) {
		body, next, err := r.batch()
		if err != nil {
			return err
		}
		if next == 0 {
			break
		}
		if !r.done {
			if err := each(r.at, body); err != nil {
				return err
			}
		}
		r.at = next
	}
	return r.tail()
}

func (r *scan) sector(at int) []byte { return r.b[at*sectorSize:][:sectorSize] }

// batch reads the batch at the sector r.at, and returns the sector behind it; 0 if a part of the
// batch was not written.
func (r *scan) batch() (body []byte, next int, err error) {
	first := r.sector(r.at)
	if !r.isRight(first, r.at) || first[0] != firstKind {
		return nil, 0, diskfile.Damaged("sector %d is wrong", r.at)
	}
	h, ok := decodeHeader(content(first))
	if ok && r.any {
		r.any, r.end = false, Position{h.end.Number - 1, h.prev}
	}
	if !ok || h.end.Number != r.end.Number+1 || h.prev != r.end.Sum {
		return nil, 0, diskfile.Damaged("the batch at sector %d does not follow batch %d", r.at, r.end.Number)
	}
	n := sectors(batchHead + h.size)
	if n > r.sectors()-r.at {
		return nil, 0, diskfile.Damaged("the batch at sector %d is longer than the file", r.at)
	}
	body = append(make([]byte, 0, n*sectorRoom), content(first)[batchHead:]...)
	for at := r.at + 1; at < r.at+n; at++ {
		s := r.sector(at)
		if isZero(s) {
			return nil, 0, nil
		}
		if !r.isRight(s, at) || s[0] != restKind {
			return nil, 0, diskfile.Damaged("sector %d is wrong", at)
		}
		body = append(body, content(s)...)
	}
	body = body[:h.size:h.size]
	if h.sum(h.end.Number, body) != h.end.Sum {
		return nil, 0, diskfile.Damaged("the batch at sector %d is wrong", r.at)
	}
	r.end, r.done = h.end, h.flags&continues != 0
	return body, r.at + n, nil
}

// tail looks at the sectors behind the last whole batch. They are zero, or belong to the next batch
// if its write was torn.
func (r *scan) tail() error {
	next := r.end.Number + 1
	for at := r.at; at < r.sectors(); at++ {
		s := r.sector(at)
		switch {
		case isZero(s):
			continue
		case r.done:
			return diskfile.Damaged("sector %d is behind the end", at)
		case !r.isRight(s, at):
			return diskfile.Damaged("sector %d is wrong", at)
		case batchOf(s) != uint32(next):
			return diskfile.Damaged("batch %d is missing", next)
		}
		r.torn = at + 1 - r.at
	}
	return nil
}
