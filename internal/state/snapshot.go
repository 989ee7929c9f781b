package state

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/flotilla-ha/flotilla/internal/codec"
	"github.com/flotilla-ha/flotilla/internal/errs"
	"github.com/flotilla-ha/flotilla/internal/keyspace"
	"github.com/flotilla-ha/flotilla/internal/seal"
)

// A snapshot is a sealed stream of frames: a tag, a length, that many bytes. A reader refuses a tag that it does not know.
const (
	FrameHead    = 1 // version, index, cluster, servers, voters, their index, what led there
	frameMember  = 2
	frameSession = 3
	FrameRole    = 4
	FrameRecord  = 5
	FrameEnd     = 6
	frameTickets = 7
	frameProcess = 8

	SnapshotVersion = 3
	maxFrame        = 64 << 20
)

func WriteSnapshot(w io.Writer, s *State) error {
	if s.Keys == nil {
		return errors.New("there is no keyring yet")
	}
	sealed, err := seal.NewWriter(w, s.Keys, s.Wrapped)
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

	e.Uint(SnapshotVersion)
	e.Uint(s.Index)
	e.String(s.Cluster)
	for _, ids := range [][]string{s.Servers, s.Voters} {
		e.Uint(uint64(len(ids)))
		for _, id := range ids {
			e.String(id)
		}
	}
	e.Uint(s.Elected)
	s.Past.encode(&e)
	frame(FrameHead)

	if s.Tickets != nil {
		s.Tickets.Encode(&e)
		frame(frameTickets)
	}
	members := s.Members.Root().Iterator()
	for _, m, ok := members.Next(); ok; _, m, ok = members.Next() {
		e.String(m.ID)
		e.String(m.Name)
		e.String(m.Addr)
		e.Bool(m.InMemory)
		e.String(m.Former)
		frame(frameMember)
	}
	sessions := s.Sessions.Root().Iterator()
	for k, ses, ok := sessions.Next(); ok; k, ses, ok = sessions.Next() {
		e.Bytes(k)
		e.Uint(ses.Number)
		e.String(ses.Incarnation)
		e.Uint(ses.Suspect)
		e.Uint(ses.acked)
		e.Uint(uint64(len(ses.Answers)))
		for _, a := range ses.Answers {
			e.Uint(a.Seq)
			e.Uint(a.Index)
			e.Byte(byte(a.Code))
		}
		frame(frameSession)
	}
	processes := s.processes.Root().Iterator()
	for k, p, ok := processes.Next(); ok; k, p, ok = processes.Next() {
		e.Bytes(k)
		p.encode(&e)
		frame(frameProcess)
	}
	roles := s.Roles.Root().Iterator()
	for k, r, ok := roles.Next(); ok; k, r, ok = roles.Next() {
		e.Bytes(k)
		e.Uint(uint64(len(r.Queue)))
		for _, q := range r.Queue {
			encodeRef(&e, q.Ref)
			e.Uint(q.Index)
			e.String(q.Group)
			e.Int(q.priority)
			e.Uint(q.Yield)
			encodeRef(&e, q.Transferee)
			for _, b := range []bool{q.Moved, q.Pinned, q.public, q.Expired, q.ReleasedOnDeath} {
				e.Bool(b)
			}
			e.Int(q.HoldDownTime)
			e.Uint(q.HoldDown)
			e.Int(q.Since)
			e.Int(q.Outage)
		}
		frame(FrameRole)
	}
	records := s.Records.Root().Iterator()
	for k, r, ok := records.Next(); ok; k, r, ok = records.Next() {
		e.Bytes(k)
		e.Int(r.modified)
		e.Uint(r.Index)
		e.Bytes(r.Value)
		frame(FrameRecord)
	}
	frame(FrameEnd)
	if err := buf.Flush(); err != nil {
		return err
	}
	return sealed.Close()
}

func ReadSnapshot(r io.Reader, secrets []seal.Secret) (*State, error) {
	sealed, err := seal.NewReader(r, secrets...)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errs.Sealed, err)
	}
	s := New()
	s.Keys, s.Wrapped = sealed.Keyring(), sealed.Wrapped()
	buf := bufio.NewReaderSize(sealed, 128<<10)
	records := s.Records.Txn()
	for tag := byte(0); tag != FrameEnd; {
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
		case FrameHead:
			if v := d.Uint(); v != SnapshotVersion {
				return nil, UnknownVersion(byte(min(v, 255)), SnapshotVersion)
			}
			s.Index, s.Cluster = d.Uint(), d.String()
			for _, ids := range []*[]string{&s.Servers, &s.Voters} {
				for range d.Count() {
					*ids = append(*ids, d.String())
				}
			}
			s.Elected = d.Uint()
			s.Past = decodePast(&d)
		case frameTickets:
			if s.Tickets, err = DecodeTicketKeys(&d); err != nil {
				return nil, err
			}
		case frameMember:
			m := Member{ID: d.String(), Name: d.String(), Addr: d.String(), InMemory: d.Bool(), Former: d.String()}
			s.Members, _, _ = s.Members.Insert([]byte(m.ID), m)
		case frameSession:
			node := d.String()
			ses := &Session{Number: d.Uint(), Incarnation: d.String(), Suspect: d.Uint(), acked: d.Uint()}
			for range d.Count() {
				ses.Answers = append(ses.Answers, Answer{Seq: d.Uint(), Index: d.Uint(), Code: Code(d.Byte())})
			}
			s.Sessions, _, _ = s.Sessions.Insert([]byte(node), ses)
		case frameProcess:
			node := d.Bytes()
			s.processes, _, _ = s.processes.Insert(node, decodeProcess(&d))
		case FrameRole:
			name, r := d.String(), &Role{}
			for range d.Count() {
				r.Queue = append(r.Queue, Claim{
					Ref: decodeRef(&d), Index: d.Uint(), Group: d.String(), priority: d.Int(), Yield: d.Uint(), Transferee: decodeRef(&d),
					Moved: d.Bool(), Pinned: d.Bool(), public: d.Bool(), Expired: d.Bool(), ReleasedOnDeath: d.Bool(), HoldDownTime: d.Int(), HoldDown: d.Uint(), Since: d.Int(), Outage: d.Int(),
				})
			}
			if len(r.Queue) == 0 {
				return nil, codec.ErrMalformed
			}
			s.Roles, _, _ = s.Roles.Insert([]byte(name), r)
			for _, c := range r.Queue {
				s.Used[keyspace.OfClaim(name)] += c.cost(name)
			}
		case FrameRecord:
			key := d.Bytes()
			rec := &Value{modified: d.Int(), Index: d.Uint(), Value: d.Bytes()}
			records.Insert(key, rec)
			s.Used[keyspace.OfRecord(string(key))] += int64(len(key) + len(rec.Value))
		case FrameEnd:
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
	s.Records = records.CommitOnly()
	return s, nil
}

// sealedError wraps the error of a sealed stream: none but its own end is right, and only after the last frame.
func sealedError(err error) error {
	if err == nil || err == io.EOF || err == io.ErrUnexpectedEOF {
		return codec.ErrMalformed
	}
	return fmt.Errorf("%w: %w", errs.Sealed, err)
}

func encodeRef(e *codec.Encoder, r Ref) {
	e.String(r.Node)
	e.Uint(r.Session)
	e.Uint(r.Seq)
}

func decodeRef(d *codec.Decoder) Ref {
	return Ref{Node: d.String(), Session: d.Uint(), Seq: d.Uint()}
}
