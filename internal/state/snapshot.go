package state

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	iradix "github.com/hashicorp/go-immutable-radix/v2"

	"github.com/flotilla-ha/flotilla/internal/codec"
	"github.com/flotilla-ha/flotilla/internal/errs"
	"github.com/flotilla-ha/flotilla/internal/keyspace"
	"github.com/flotilla-ha/flotilla/internal/seal"
)

// SnapshotVersion is the format version that the head of a snapshot names.
const SnapshotVersion = 5

// A snapshot is a sealed stream of frames: a tag, a length, and that many bytes. The head comes
// first and the end last. A reader refuses a tag that it does not know.
const (
	frameHead byte = iota + 1
	frameTickets
	frameMember
	frameSession
	frameProcess
	frameRole
	frameRecord
	frameEnd
	frameBackup // behind the head, in a backup only
	frameSeals
	frameDemoted
	frameEviction
	frameItem
	frameDeletion
	frameForgotten

	maxFrame = 64 << 20 // bytes
)

// WriteSnapshot writes the sealed state to w.
func WriteSnapshot(w io.Writer, s *State) error { return writeSealed(w, s, nil) }

// writeSealed writes a snapshot, or a backup if there is a head.
func writeSealed(w io.Writer, s *State, h *BackupHead) error {
	if s.Keys == nil {
		return errors.New("there is no keyring yet")
	}
	sealed, err := seal.NewWriter(w, s.Keys, s.Wrapped)
	if err != nil {
		return err
	}
	buf := bufio.NewWriterSize(sealed, 128<<10)
	s.writeFrames(&framer{w: buf}, h)
	if err := buf.Flush(); err != nil {
		return err
	}
	return sealed.Close()
}

func (s *State) writeFrames(f *framer, h *BackupHead) {
	s.encodeHead(&f.e)
	f.end(frameHead)
	if h != nil {
		h.encode(&f.e)
		f.end(frameBackup)
	}
	if !s.Seals.isZero() {
		s.Seals.encode(&f.e)
		f.end(frameSeals)
	}
	if s.Tickets != nil {
		s.Tickets.Encode(&f.e)
		f.end(frameTickets)
	}
	for _, m := range Each(s.Members, nil) {
		m.encode(&f.e)
		f.end(frameMember)
	}
	for node, index := range Each(s.Demoted, nil) {
		f.e.Bytes(node)
		f.e.Uint(index)
		f.end(frameDemoted)
	}
	for _, v := range s.Evictions {
		v.encode(&f.e)
		f.end(frameEviction)
	}
	for node, ses := range Each(s.Sessions, nil) {
		f.e.Bytes(node)
		ses.encode(&f.e)
		f.end(frameSession)
	}
	for node, p := range Each(s.processes, nil) {
		f.e.Bytes(node)
		p.encode(&f.e)
		f.end(frameProcess)
	}
	for name, r := range Each(s.Roles, nil) {
		f.e.Bytes(name)
		r.encode(&f.e)
		f.end(frameRole)
	}
	for key, v := range Each(s.Records, nil) {
		f.e.Bytes(key)
		v.encode(&f.e)
		f.end(frameRecord)
	}
	for name, i := range Each(s.Items.ByName, nil) {
		f.e.Bytes(name)
		i.encode(&f.e)
		f.end(frameItem)
	}
	for _, x := range Each(s.Items.deletions, nil) {
		x.encode(&f.e)
		f.end(frameDeletion)
	}
	if s.Items.Forgotten != 0 {
		f.e.Uint(s.Items.Forgotten)
		f.end(frameForgotten)
	}
	f.end(frameEnd)
}

// encodeHead writes the format version first, so that any version of the program can read it.
func (s *State) encodeHead(e *codec.Encoder) {
	e.Uint(SnapshotVersion)
	e.Uint(s.Version)
	e.Uint(s.Incarnation)
	e.Uint(s.Index)
	e.String(s.Cluster)
	for _, ids := range [][]string{s.Servers, s.Voters} {
		e.Uint(uint64(len(ids)))
		for _, id := range ids {
			e.String(id)
		}
	}
	e.Uint(s.Elected)
	s.Past.encode(e)
}

func (s *State) decodeHead(d *codec.Decoder) error {
	if v := d.Uint(); v != SnapshotVersion {
		return UnknownVersion(byte(min(v, 255)), SnapshotVersion)
	}
	if s.Version = d.Uint(); s.Version > Version {
		return unsupported(s.Version)
	}
	s.Incarnation, s.Index, s.Cluster = d.Uint(), d.Uint(), d.String()
	for _, ids := range []*[]string{&s.Servers, &s.Voters} {
		for range d.Count() {
			*ids = append(*ids, d.String())
		}
	}
	s.Elected = d.Uint()
	s.Past = decodePast(d)
	return nil
}

// framer collects the body of a frame in e, and writes it at its end.
type framer struct {
	w *bufio.Writer // keeps its first error for Flush
	e codec.Encoder
}

func (f *framer) end(tag byte) {
	var head [1 + binary.MaxVarintLen64]byte
	head[0] = tag
	n := binary.PutUvarint(head[1:], uint64(len(f.e.B)))
	f.w.Write(head[:1+n])
	f.w.Write(f.e.B)
	f.e.B = f.e.B[:0]
}

// ReadSnapshot reads what WriteSnapshot wrote. Its error wraps errs.ErrSealed if no secret opens
// the stream, or if it was changed or cut.
func ReadSnapshot(r io.Reader, secrets []seal.Secret) (*State, error) {
	s, h, err := readSealed(r, secrets)
	if err == nil && h != nil {
		return nil, errors.New("it is a backup, and no snapshot of a node: flotilla restore makes a data directory of it")
	}
	return s, err
}

// readSealed reads what writeSealed wrote.
func readSealed(r io.Reader, secrets []seal.Secret) (s *State, h *BackupHead, err error) {
	sealed, err := seal.NewReader(r, secrets...)
	if err != nil {
		return nil, nil, fmt.Errorf("%w: %w", errs.ErrSealed, err)
	}
	s = New()
	s.Keys, s.Wrapped = sealed.Keyring(), sealed.Wrapped()
	buf := bufio.NewReaderSize(sealed, 128<<10)
	records := s.Records.Txn()
	for before, tag := byte(0), byte(0); tag != frameEnd; before = tag {
		var d codec.Decoder
		if tag, d.B, err = readFrame(buf); err != nil {
			return nil, nil, err
		}
		if (tag == frameHead) != (before == 0) || tag == frameBackup && before != frameHead {
			return nil, nil, codec.ErrMalformed
		}
		if tag == frameBackup {
			h = new(decodeBackupHead(&d))
		} else if err := s.decodeFrame(tag, &d, records); err != nil {
			return nil, nil, err
		}
		if err := d.End(); err != nil {
			return nil, nil, err
		}
	}
	if _, err := buf.ReadByte(); err != io.EOF {
		return nil, nil, streamError(err)
	}
	s.Records = records.CommitOnly()
	return s, h, nil
}

func readFrame(buf *bufio.Reader) (tag byte, body []byte, err error) {
	if tag, err = buf.ReadByte(); err != nil {
		return 0, nil, streamError(err)
	}
	size, err := binary.ReadUvarint(buf)
	if err != nil {
		return 0, nil, streamError(err)
	}
	if size > maxFrame {
		return 0, nil, codec.ErrMalformed
	}
	body = make([]byte, size)
	if _, err := io.ReadFull(buf, body); err != nil {
		return 0, nil, streamError(err)
	}
	return tag, body, nil
}

// decodeFrame adds what a frame has to s, and its records to the transaction.
func (s *State) decodeFrame(tag byte, d *codec.Decoder, records *iradix.Txn[*Value]) (err error) {
	switch tag {
	case frameHead:
		return s.decodeHead(d)
	case frameTickets:
		s.Tickets, err = DecodeTicketKeys(d)
		return err
	case frameSeals:
		s.Seals = decodeSeals(d)
	case frameMember:
		m := decodeMember(d)
		s.Members, _, _ = s.Members.Insert([]byte(m.ID), m)
	case frameDemoted:
		node := d.Bytes()
		s.Demoted, _, _ = s.Demoted.Insert(node, d.Uint())
	case frameEviction:
		s.Evictions = append(s.Evictions, decodeEviction(d))
	case frameSession:
		node := d.Bytes()
		s.Sessions, _, _ = s.Sessions.Insert(node, decodeSession(d))
	case frameProcess:
		node := d.Bytes()
		s.processes, _, _ = s.processes.Insert(node, decodeProcess(d))
	case frameRole:
		name := d.String()
		r := decodeRole(d)
		var twice bool
		s.Roles, _, twice = s.Roles.Insert([]byte(name), r)
		d.Bad = d.Bad || twice
		for _, c := range r.Queue {
			s.Used[keyspace.OfClaim(name)] += c.cost(name)
		}
	case frameRecord:
		key := d.Bytes()
		v := decodeValue(d)
		_, twice := records.Insert(key, v)
		d.Bad = d.Bad || twice
		s.Used[keyspace.OfRecord(string(key))] += int64(len(key) + len(v.Value))
	case frameItem:
		name := d.String()
		i := decodeItem(d)
		d.Bad = d.Bad || s.Items.Get(name) != nil
		s.Used[keyspace.ProgramItems] += s.Items.insert(name, i)
	case frameDeletion:
		s.Items.remember(decodeDeletion(d))
	case frameForgotten:
		s.Items.Forgotten = d.Uint()
	case frameEnd:
	default:
		return fmt.Errorf("part %d is not known to this version of flotilla; upgrade this node", tag)
	}
	return nil
}

// streamError wraps an error of a sealed stream. The stream has its own end, so an end of the input
// before the last frame is never right.
func streamError(err error) error {
	if err == nil || err == io.EOF || err == io.ErrUnexpectedEOF {
		return codec.ErrMalformed
	}
	return fmt.Errorf("%w: %w", errs.ErrSealed, err)
}
