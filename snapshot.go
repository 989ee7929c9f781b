package flotilla

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/hashicorp/raft"

	"github.com/flotilla-ha/flotilla/internal/seal"
)

// A snapshot is a sealed stream of frames: a tag, a length, that many bytes. A reader refuses a tag that it does not know.
const (
	frameHead    = 1 // version, index, cluster, servers, voters, their index
	frameMember  = 2
	frameSession = 3
	frameRole    = 4
	frameRecord  = 5
	frameEnd     = 6

	snapshotVersion = 1
	maxFrame        = 64 << 20
)

// snapshot writes one state. It implements raft.FSMSnapshot.
type snapshot struct{ s *state }

// Persist writes the sealed state to the sink. It runs beside Apply.
func (p *snapshot) Persist(sink raft.SnapshotSink) error {
	err := writeSnapshot(sink, p.s)
	if err != nil {
		return errors.Join(err, sink.Cancel())
	}
	return sink.Close()
}

// Release does nothing: the state belongs to the garbage collector.
func (p *snapshot) Release() {}

func writeSnapshot(w io.Writer, s *state) error {
	if s.keys == nil {
		return errors.New("there is no keyring yet")
	}
	sealed, err := seal.NewWriter(w, s.keys, s.wrapped)
	if err != nil {
		return err
	}
	buf := bufio.NewWriterSize(sealed, 128<<10)
	var e encoder
	frame := func(tag byte) {
		var head [1 + binary.MaxVarintLen64]byte
		head[0] = tag
		n := binary.PutUvarint(head[1:], uint64(len(e.b)))
		buf.Write(head[:1+n]) // a bufio.Writer keeps its first error for Flush
		buf.Write(e.b)
		e.b = e.b[:0]
	}

	e.uint(snapshotVersion)
	e.uint(s.index)
	e.string(s.cluster)
	for _, ids := range [][]string{s.servers, s.voters} {
		e.uint(uint64(len(ids)))
		for _, id := range ids {
			e.string(id)
		}
	}
	e.uint(s.elected)
	frame(frameHead)

	members := s.members.Root().Iterator()
	for _, m, ok := members.Next(); ok; _, m, ok = members.Next() {
		e.string(m.ID)
		e.string(m.Name)
		e.string(m.Addr)
		frame(frameMember)
	}
	sessions := s.sessions.Root().Iterator()
	for k, ses, ok := sessions.Next(); ok; k, ses, ok = sessions.Next() {
		e.bytes(k)
		e.uint(ses.number)
		e.string(ses.boot)
		e.uint(ses.suspect)
		e.uint(ses.acked)
		e.uint(uint64(len(ses.answers)))
		for _, a := range ses.answers {
			e.uint(a.seq)
			e.uint(a.index)
			e.byte(byte(a.code))
		}
		frame(frameSession)
	}
	roles := s.roles.Root().Iterator()
	for k, r, ok := roles.Next(); ok; k, r, ok = roles.Next() {
		e.bytes(k)
		e.uint(uint64(len(r.queue)))
		for _, q := range r.queue {
			e.ref(q.claimRef)
			e.uint(q.index)
			e.string(q.group)
			e.int(q.priority)
			e.uint(q.yield)
			e.ref(q.heir)
		}
		frame(frameRole)
	}
	records := s.records.Root().Iterator()
	for k, r, ok := records.Next(); ok; k, r, ok = records.Next() {
		e.bytes(k)
		e.int(r.modified)
		e.uint(r.index)
		e.bytes(r.value)
		frame(frameRecord)
	}
	frame(frameEnd)
	if err := buf.Flush(); err != nil {
		return err
	}
	return sealed.Close()
}

func readSnapshot(r io.Reader, secrets []seal.Secret) (*state, error) {
	sealed, err := seal.NewReader(r, secrets...)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrSealed, err)
	}
	s := newState()
	s.keys, s.wrapped = sealed.Keyring(), sealed.Wrapped()
	buf := bufio.NewReaderSize(sealed, 128<<10)
	records := s.records.Txn()
	for tag := byte(0); tag != frameEnd; {
		if tag, err = buf.ReadByte(); err != nil {
			return nil, sealedError(err)
		}
		size, err := binary.ReadUvarint(buf)
		if err != nil {
			return nil, sealedError(err)
		}
		if size > maxFrame {
			return nil, errMalformed
		}
		body := make([]byte, size)
		if _, err := io.ReadFull(buf, body); err != nil {
			return nil, sealedError(err)
		}
		d := decoder{b: body}
		switch tag {
		case frameHead:
			if v := d.uint(); v != snapshotVersion {
				return nil, fmt.Errorf("version %d is not known to this version of flotilla; upgrade this node", v)
			}
			s.index, s.cluster = d.uint(), d.string()
			for _, ids := range []*[]string{&s.servers, &s.voters} {
				for range d.count() {
					*ids = append(*ids, d.string())
				}
			}
			s.elected = d.uint()
		case frameMember:
			m := Member{ID: d.string(), Name: d.string(), Addr: d.string()}
			s.members, _, _ = s.members.Insert([]byte(m.ID), m)
		case frameSession:
			node := d.string()
			ses := &session{number: d.uint(), boot: d.string(), suspect: d.uint(), acked: d.uint()}
			for range d.count() {
				ses.answers = append(ses.answers, answer{seq: d.uint(), index: d.uint(), code: code(d.byte())})
			}
			s.sessions, _, _ = s.sessions.Insert([]byte(node), ses)
		case frameRole:
			name, r := d.string(), &role{}
			for range d.count() {
				r.queue = append(r.queue, claim{
					claimRef: d.ref(), index: d.uint(), group: d.string(), priority: d.int(), yield: d.uint(), heir: d.ref(),
				})
			}
			if len(r.queue) == 0 {
				return nil, errMalformed
			}
			s.roles, _, _ = s.roles.Insert([]byte(name), r)
			s.bytes += int64(len(name) * len(r.queue))
		case frameRecord:
			key := d.bytes()
			rec := &record{modified: d.int(), index: d.uint(), value: d.bytes()}
			records.Insert(key, rec)
			s.bytes += int64(len(key) + len(rec.value))
		case frameEnd:
		default:
			return nil, fmt.Errorf("part %d is not known to this version of flotilla; upgrade this node", tag)
		}
		if err := d.end(); err != nil {
			return nil, err
		}
	}
	if _, err := buf.ReadByte(); err != io.EOF {
		return nil, sealedError(err)
	}
	s.records = records.CommitOnly()
	return s, nil
}

// sealedError wraps the error of a sealed stream: none but its own end is right, and only after the last frame.
func sealedError(err error) error {
	if err == nil || err == io.EOF || err == io.ErrUnexpectedEOF {
		return errMalformed
	}
	return fmt.Errorf("%w: %w", ErrSealed, err)
}

func (e *encoder) ref(r claimRef) {
	e.string(r.node)
	e.uint(r.session)
	e.uint(r.seq)
}

func (d *decoder) ref() claimRef { return claimRef{node: d.string(), session: d.uint(), seq: d.uint()} }
