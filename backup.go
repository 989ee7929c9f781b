package flotilla

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/flotilla-ha/flotilla/internal/errs"
	"github.com/flotilla-ha/flotilla/internal/keyspace"
	"github.com/flotilla-ha/flotilla/internal/seal"
	"github.com/flotilla-ha/flotilla/internal/state"
)

// A backup pauses after so many bytes, for so many times as long as it took to seal them.
const (
	backupStride = 512 << 10
	backupRest   = 2
)

// BackupInfo describes a backup.
type BackupInfo struct {
	Cluster     string    // the cluster's ID
	Incarnation uint64    `json:",omitempty"` // of the cluster; 0: it was never restored
	Index       uint64    // of the last entry of the log that the backup includes
	Time        time.Time // when it was made, by the clock of the node that made it
	Node        string    // the name of that node

	// Current says that a leader had confirmed that the node had everything that was acknowledged
	// before. Without a leader no node knows that.
	Current bool

	Secrets      []string // fingerprints of the secrets; each of them opens the backup
	Records      int      // how many records it has
	Certificates int      // how many certificates are among them
	Entries      int      `json:",omitempty"` // how many entries of buckets it has, see Node.KV
	Bytes        int64    // of all names and values
	Size         int64    // of the backup itself, in bytes
}

// Backup writes a sealed backup of the cluster to w. It holds everything that the cluster needs to
// be itself again: certificates and their keys, accounts, records, entries of buckets, the keys of
// session tickets. What belongs to nodes is left out: their sessions, roles and locks, the entries
// that are bound to sessions, and the certificates of TLS.PerNode.
//
// Every node can make a backup. It has everything that was acknowledged before the call if
// BackupInfo.Current is true. Without a leader, Backup waits for a few seconds and then writes what
// the node has. It works slowly, to leave the processor to writers, and never blocks them. The
// backup is opened by any secret that the cluster was formed with. After an error what was written
// is no backup, and [VerifyBackup] says so.
func (n *Node) Backup(ctx context.Context, w io.Writer) (BackupInfo, error) {
	ctx, stop := n.life.WhileOpen(ctx)
	defer stop()
	if n.life.Open.Err() != nil {
		return BackupInfo{}, ErrClosed
	}
	current := n.replica.CaughtUp(ctx, 1)
	s := n.store.State()
	if s.Keys == nil {
		return BackupInfo{}, errs.Edge("backing up", fmt.Errorf("%w: %s", ErrNotReady, n.members.WhyNot()))
	}
	var size, rested int64
	var worked time.Duration // since the last pause, on the processor
	begun := time.Now()
	out := writerFunc(func(p []byte) (int, error) {
		if ctx.Err() != nil {
			return 0, context.Cause(ctx)
		}
		if worked += time.Since(begun); size-rested >= backupStride {
			time.Sleep(backupRest * worked) // writers want the processor too
			rested, worked = size, 0
		}
		n, err := w.Write(p)
		size, begun = size+int64(n), time.Now()
		return n, err
	})
	head := state.BackupHead{Time: time.Now().UnixNano(), Node: n.self.Name, Current: current}
	if err := state.WriteBackup(out, s, head); err != nil {
		return BackupInfo{}, errs.Edge("backing up", err)
	}
	info, err := backupInfo(s, head, size)
	return info, errs.Edge("backing up", err)
}

// VerifyBackup reads a backup as a whole, and restores it into memory. One of the secrets must be
// one that the cluster had when the backup was made. The error wraps ErrSealed if none is, and then
// names the secrets that are needed. It also wraps ErrSealed if any bit of the backup was changed,
// or if it was cut.
func VerifyBackup(r io.Reader, secrets ...Secret) (BackupInfo, error) {
	_, info, err := readBackup(r, secrets)
	return info, errs.Edge("reading the backup", err)
}

func readBackup(r io.Reader, secrets []Secret) (*state.State, BackupInfo, error) {
	if len(secrets) == 0 {
		return nil, BackupInfo{}, errors.New("no secret is given")
	}
	in := &countingReader{r: r}
	s, head, err := state.ReadBackup(in, rawSecrets(secrets))
	if err != nil {
		return nil, BackupInfo{}, err
	}
	info, err := backupInfo(s, head, in.n)
	return s, info, err
}

func backupInfo(s *state.State, h state.BackupHead, size int64) (BackupInfo, error) {
	info := BackupInfo{
		Cluster: s.Cluster, Incarnation: s.Incarnation, Index: s.Index, Time: time.Unix(0, h.Time), Node: h.Node,
		Current: h.Current, Records: s.Records.Len(), Entries: s.Items.ByName.Len(), Bytes: s.Bytes(), Size: size,
	}
	ids, err := seal.SecretsOf(s.Wrapped)
	for _, id := range ids {
		info.Secrets = append(info.Secrets, id.String())
	}
	for key := range state.Each(s.Records, keyspace.Tree("certificates")) {
		if _, part := keyspace.BundlePart(keyspace.Plain(key)); part == ".crt" {
			info.Certificates++
		}
	}
	return info, err
}

type writerFunc func(p []byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

// countingReader counts what is read.
type countingReader struct {
	r io.Reader
	n int64
}

func (c *countingReader) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += int64(n)
	return n, err
}
