package snapstore

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"

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

// strip reads the preamble off r, compares it with the description, and returns the description
// that raft may see. Its Size is that of the rest, because it announces the bytes that follow an
// InstallSnapshot. Its Peers are empty: only snapshots of version 0 need them, and no checksum
// covers them.
func strip(dir, id string, m *raft.SnapshotMeta, r io.Reader) (*raft.SnapshotMeta, error) {
	var p [preambleSize]byte
	if _, err := io.ReadFull(r, p[:]); err != nil {
		return nil, fmt.Errorf("snapshot %s: it is too short", id)
	}
	fi, err := os.Stat(filepath.Join(dir, id, StateName))
	if err != nil {
		return nil, err
	}
	if m.ID != id || m.Size != fi.Size() || string(p[:]) != string(preamble(m)) {
		return nil, fmt.Errorf("snapshot %s: %s does not describe its content", id, MetaName)
	}
	out := *m
	out.Size -= preambleSize
	out.Peers = nil
	return &out, nil
}
