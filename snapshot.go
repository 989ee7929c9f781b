package flotilla

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/flotilla-ha/flotilla/internal/codec"
	"github.com/flotilla-ha/flotilla/internal/keyspace"
	"github.com/flotilla-ha/flotilla/internal/seal"
)

// A snapshot is a sealed stream of frames: a tag, a length, that many bytes. A reader refuses a tag that it does not know.
const (
	frameHead    = 1 // version, index, cluster, servers, voters, their index, what led there
	frameMember  = 2
	frameSession = 3
	frameRole    = 4
	frameRecord  = 5
	frameEnd     = 6
	frameTickets = 7
	frameProcess = 8

	snapshotVersion = 3
	maxFrame        = 64 << 20
)

func writeSnapshot(w io.Writer, s *state) error {
	if s.keys == nil {
		return errors.New("there is no keyring yet")
	}
	sealed, err := seal.NewWriter(w, s.keys, s.wrapped)
	if err != nil {
		return err
	}
	buf := bufio.NewWriterSize(sealed, 128<<10)
	var e codec.Encoder
	frame := func(tag byte) {
		var head [1 + binary.MaxVarintLen64]byte
		head[0] = tag
		n := binary.PutUvarint(head[1:], uint64(len(e.B)))
		buf.Write(head[:1+n]) // a bufio.Writer keeps its first error for Flush
		buf.Write(e.B)
		e.B = e.B[:0]
	}

	e.Uint(snapshotVersion)
	e.Uint(s.index)
	e.String(s.cluster)
	for _, ids := range [][]string{s.servers, s.voters} {
		e.Uint(uint64(len(ids)))
		for _, id := range ids {
			e.String(id)
		}
	}
	e.Uint(s.elected)
	s.past.encode(&e)
	frame(frameHead)

	if s.tickets != nil {
		s.tickets.encode(&e)
		frame(frameTickets)
	}
	members := s.members.Root().Iterator()
	for _, m, ok := members.Next(); ok; _, m, ok = members.Next() {
		e.String(m.ID)
		e.String(m.Name)
		e.String(m.Addr)
		e.Bool(m.InMemory)
		e.String(m.Former)
		frame(frameMember)
	}
	sessions := s.sessions.Root().Iterator()
	for k, ses, ok := sessions.Next(); ok; k, ses, ok = sessions.Next() {
		e.Bytes(k)
		e.Uint(ses.number)
		e.String(ses.boot)
		e.Uint(ses.suspect)
		e.Uint(ses.acked)
		e.Uint(uint64(len(ses.answers)))
		for _, a := range ses.answers {
			e.Uint(a.seq)
			e.Uint(a.index)
			e.Byte(byte(a.code))
		}
		frame(frameSession)
	}
	processes := s.processes.Root().Iterator()
	for k, p, ok := processes.Next(); ok; k, p, ok = processes.Next() {
		e.Bytes(k)
		p.encode(&e)
		frame(frameProcess)
	}
	roles := s.roles.Root().Iterator()
	for k, r, ok := roles.Next(); ok; k, r, ok = roles.Next() {
		e.Bytes(k)
		e.Uint(uint64(len(r.queue)))
		for _, q := range r.queue {
			encodeRef(&e, q.claimRef)
			e.Uint(q.index)
			e.String(q.group)
			e.Int(q.priority)
			e.Uint(q.yield)
			encodeRef(&e, q.heir)
			for _, b := range []bool{q.moved, q.pinned, q.public, q.lapsed, q.willed} {
				e.Bool(b)
			}
			e.Int(q.linger)
			e.Uint(q.ghost)
			e.Int(q.since)
			e.Int(q.outage)
		}
		frame(frameRole)
	}
	records := s.records.Root().Iterator()
	for k, r, ok := records.Next(); ok; k, r, ok = records.Next() {
		e.Bytes(k)
		e.Int(r.modified)
		e.Uint(r.index)
		e.Bytes(r.value)
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
			return nil, codec.ErrMalformed
		}
		body := make([]byte, size)
		if _, err := io.ReadFull(buf, body); err != nil {
			return nil, sealedError(err)
		}
		d := codec.Decoder{B: body}
		switch tag {
		case frameHead:
			if v := d.Uint(); v != snapshotVersion {
				return nil, unknownVersion(byte(min(v, 255)), snapshotVersion)
			}
			s.index, s.cluster = d.Uint(), d.String()
			for _, ids := range []*[]string{&s.servers, &s.voters} {
				for range d.Count() {
					*ids = append(*ids, d.String())
				}
			}
			s.elected = d.Uint()
			s.past = decodePast(&d)
		case frameTickets:
			if s.tickets, err = decodeTicketKeys(&d); err != nil {
				return nil, err
			}
		case frameMember:
			m := peerInfo{ID: d.String(), Name: d.String(), Addr: d.String(), InMemory: d.Bool(), Former: d.String()}
			s.members, _, _ = s.members.Insert([]byte(m.ID), m)
		case frameSession:
			node := d.String()
			ses := &session{number: d.Uint(), boot: d.String(), suspect: d.Uint(), acked: d.Uint()}
			for range d.Count() {
				ses.answers = append(ses.answers, answer{seq: d.Uint(), index: d.Uint(), code: code(d.Byte())})
			}
			s.sessions, _, _ = s.sessions.Insert([]byte(node), ses)
		case frameProcess:
			node := d.Bytes()
			s.processes, _, _ = s.processes.Insert(node, decodeProcess(&d))
		case frameRole:
			name, r := d.String(), &role{}
			for range d.Count() {
				r.queue = append(r.queue, claim{
					claimRef: decodeRef(&d), index: d.Uint(), group: d.String(), priority: d.Int(), yield: d.Uint(), heir: decodeRef(&d),
					moved: d.Bool(), pinned: d.Bool(), public: d.Bool(), lapsed: d.Bool(), willed: d.Bool(), linger: d.Int(), ghost: d.Uint(), since: d.Int(), outage: d.Int(),
				})
			}
			if len(r.queue) == 0 {
				return nil, codec.ErrMalformed
			}
			s.roles, _, _ = s.roles.Insert([]byte(name), r)
			for _, c := range r.queue {
				s.used[keyspace.OfClaim(name)] += c.cost(name)
			}
		case frameRecord:
			key := d.Bytes()
			rec := &record{modified: d.Int(), index: d.Uint(), value: d.Bytes()}
			records.Insert(key, rec)
			s.used[keyspace.OfRecord(string(key))] += int64(len(key) + len(rec.value))
		case frameEnd:
		default:
			return nil, fmt.Errorf("part %d is not known to this version of flotilla; upgrade this node", tag)
		}
		if err := d.End(); err != nil {
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
		return codec.ErrMalformed
	}
	return fmt.Errorf("%w: %w", ErrSealed, err)
}

func encodeRef(e *codec.Encoder, r claimRef) {
	e.String(r.node)
	e.Uint(r.session)
	e.Uint(r.seq)
}

func decodeRef(d *codec.Decoder) claimRef {
	return claimRef{node: d.String(), session: d.Uint(), seq: d.Uint()}
}
