package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/flotilla-ha/flotilla"
)

// fetch downloads a backup. The file has its name only when the backup was verified.
func fetch(ctx context.Context, out io.Writer, store flotilla.BackupStore, name, file string, secrets []flotilla.Secret) error {
	switch _, err := os.Lstat(file); {
	case err == nil:
		return fmt.Errorf("%s exists: give another name, or move it away", file)
	case !errors.Is(err, fs.ErrNotExist):
		return err
	}
	fmt.Fprintf(out, "fetching %s\n", name)
	r, err := store.Load(ctx, name)
	if err != nil {
		return err
	}
	defer r.Close()
	tmp, err := os.CreateTemp(filepath.Dir(file), ".s3backup-*.tmp")
	if err != nil {
		return err
	}
	defer os.Remove(tmp.Name()) // which does nothing once it has its name
	info, err := flotilla.VerifyBackup(io.TeeReader(r, tmp), secrets...)
	if err := errors.Join(err, tmp.Sync(), tmp.Close()); err != nil {
		return fmt.Errorf("%s was not fetched: %w", name, err)
	}
	if err := os.Rename(tmp.Name(), file); err != nil {
		return err
	}
	return describe(out, name, info, "verified, and stored as "+file)
}

// restore makes the data directory of a node.
func restore(ctx context.Context, out io.Writer, store flotilla.BackupStore, name, dir string, secrets []flotilla.Secret) error {
	fmt.Fprintf(out, "restoring %s\n", name)
	r, err := store.Load(ctx, name)
	if err != nil {
		return err
	}
	defer r.Close()
	info, err := flotilla.Restore(dir, r, secrets...)
	if err != nil {
		return err
	}
	return describe(out, name, info, "restored into "+dir+"; start one node with it, and the others with empty directories")
}

func describe(out io.Writer, name string, info flotilla.BackupInfo, done string) error {
	_, err := fmt.Fprintf(out, "%s: %d bytes, made %s by %s, with %d records, %d certificates among them\n%s\n",
		name, info.Size, info.Time.UTC().Format(time.RFC3339), info.Node, info.Records, info.Certificates, done)
	return err
}
