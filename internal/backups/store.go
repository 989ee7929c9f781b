package backups

import (
	"context"
	"io"
)

// Store keeps backups under names. A [Keeper] calls one method at a time.
type Store interface {
	// Save stores what write writes. The name appears only when everything is stored, and replaces
	// what had it before. After an error of write or of the store nothing is stored.
	Save(ctx context.Context, name string, write func(io.Writer) error) error

	// Load opens a backup. The error wraps fs.ErrNotExist if there is none of that name.
	Load(ctx context.Context, name string) (io.ReadCloser, error)

	// List returns the names of all that is stored, in any order. Other names may be among them.
	List(ctx context.Context) ([]string, error)

	// Remove removes a backup. It is no error if there is none of that name.
	Remove(ctx context.Context, name string) error
}
