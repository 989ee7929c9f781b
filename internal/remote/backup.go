package remote

import (
	"context"
	"fmt"
	"io"

	"github.com/flotilla-ha/flotilla/internal/codec"
)

// CallBackup takes a BackupRequest. Its reply is a sealed backup, of any length. That the end of it
// is missing shows when it is read: see state.ReadBackup.
const CallBackup = "/1/backup"

// BackupRequest asks a node for a backup of the cluster.
type BackupRequest struct{}

// Encode returns the message's bytes.
func (BackupRequest) Encode() []byte { return nil }

// DecodeBackupRequest is the inverse of Encode.
func DecodeBackupRequest(b []byte) (BackupRequest, error) {
	d := codec.Decoder{B: b}
	return BackupRequest{}, d.End()
}

// Backup has a node make a backup of the cluster, and writes it to w. When a node fails before the
// first byte, another one is asked. After an error what was written is no backup.
func (c *Client) Backup(ctx context.Context, w io.Writer) error {
	out := &target{w: w}
	return c.each(ctx, func(addr string) error {
		_, err := c.port.StreamAddr(ctx, addr, CallBackup, BackupRequest{}.Encode(), out)
		switch {
		case err == nil:
			return nil
		case out.err != nil:
			return &finalError{out.err}
		case out.n > 0:
			return &finalError{fmt.Errorf("the backup from the node at %s was cut off after %d bytes (%w); repeat it", addr, out.n, err)}
		}
		return err
	})
}

// target counts what was written to w, and keeps w's error apart from those of the network.
type target struct {
	w   io.Writer
	n   int64
	err error
}

func (t *target) Write(p []byte) (int, error) {
	n, err := t.w.Write(p)
	t.n += int64(n)
	t.err = err
	return n, err
}
