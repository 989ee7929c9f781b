package snapstore

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"
	"os"

	"github.com/hashicorp/raft"

	"github.com/flotilla-ha/flotilla/internal/durable/diskfile"
)

const (
	preambleMagic   = "flsn"
	preambleVersion = 1
	preambleSize    = 45
)

// preamble returns what stands before a snapshot's content: its description, with a checksum. It is
// only ever compared, so there is no decoder.
func preamble(m *raft.SnapshotMeta) []byte {
	b := make([]byte, 0, preambleSize)
	b = append(b, preambleMagic...)
	b = append(b, preambleVersion)
	for _, v := range []uint64{uint64(m.Version), m.Index, m.Term, m.ConfigurationIndex} {
		b = binary.BigEndian.AppendUint64(b, v)
	}
	b = binary.BigEndian.AppendUint32(
		b,
		crc32.Checksum(raft.EncodeConfiguration(m.Configuration), diskfile.Castagnoli()),
	)
	return diskfile.AppendSum(b)
}

// stripFile is strip for an open file, which may have been removed meanwhile.
func stripFile(id string, m *raft.SnapshotMeta, f *os.File) (*raft.SnapshotMeta, error) {
	fi, err := f.Stat()
	if err != nil {
		return nil, err
	}
	return strip(id, m, f, fi.Size())
}

// strip reads the preamble off r, which has size bytes in all. It compares the preamble with the
// description, and returns the description that raft may see. Its Size is that of the rest, because
// it announces the bytes that follow an InstallSnapshot. Its Peers are empty: only snapshots of
// version 0 need them, and no checksum covers them.
func strip(id string, m *raft.SnapshotMeta, r io.Reader, size int64) (*raft.SnapshotMeta, error) {
	var p [preambleSize]byte
	if _, err := io.ReadFull(r, p[:]); err != nil {
		return nil, fmt.Errorf("snapshot %s: it is too short", id)
	}
	if m.ID != id || m.Size != size || string(p[:]) != string(preamble(m)) {
		return nil, fmt.Errorf("snapshot %s: %s does not describe its content", id, MetaName)
	}
	out := *m
	out.Size -= preambleSize
	out.Peers = nil
	return &out, nil
}
