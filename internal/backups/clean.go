package backups

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
)

// apart names the files that count for nothing. None of them takes the place of a backup that
// counts.
type apart struct {
	looked bool     // those from before Run are among them
	failed []string // could not be read back; they go as soon as a backup counts
	closed []string // cannot be restored with the secrets of this cluster; they stay
}

func (a apart) has(name string) bool {
	return slices.Contains(a.failed, name) || slices.Contains(a.closed, name)
}

// clean removes old backups, when a newer one counts. Those that could not be read back go first:
// nobody knows what they are worth, and one that is worth something must not go in their place. It
// returns what is still apart. It does not write to k, which may run again before it is done.
func (k *Keeper) clean(ctx context.Context, a apart) (apart, error) {
	names, err := k.cfg.Store.List(ctx)
	if err != nil {
		return a, err
	}
	if !a.looked {
		if a, err = k.look(ctx, names, a); err != nil {
			return a, err
		}
	}
	names = slices.DeleteFunc(names, a.has)
	unread := a.failed
	a.failed = nil
	var failed []error
	for _, name := range append(unread, old(k.cfg.Cluster(), names, k.cfg.Every, k.cfg.Keep)...) {
		if err := k.cfg.Store.Remove(ctx, name); err != nil {
			failed = append(failed, fmt.Errorf("%s: %w", name, err))
			if slices.Contains(unread, name) {
				a.failed = append(a.failed, name)
			}
		}
	}
	return a, errors.Join(failed...)
}

// look reads the files from before Run that may never have been read back: those that are later
// than the last one that counted then. Others that count are later as well, when the clock of their
// node was ahead, or when the cluster was restored since. So a file that can be read now stays.
func (k *Keeper) look(ctx context.Context, names []string, a apart) (apart, error) {
	found := apart{looked: true, failed: slices.Clone(a.failed)}
	former, _ := timeOf(k.cfg.Cluster(), k.former)
	last, _ := k.cfg.Last()
	for _, name := range names {
		made, ok := timeOf(k.cfg.Cluster(), name)
		if !ok || !made.After(former) || name == last.Name || found.has(name) {
			continue
		}
		_, err := k.read(ctx, name)
		switch {
		case ctx.Err() != nil: // that is why it could not be read
			return a, context.Cause(ctx)
		case errors.As(err, new(*unreadError)):
			k.cfg.Log.Warn("a backup that nobody has read back cannot be read now either, and is removed", "name", name, "err", err)
			found.failed = append(found.failed, name)
		case err != nil && !errors.Is(err, fs.ErrNotExist):
			k.cfg.Log.Warn("a backup cannot be restored with the secrets of this cluster; if nobody needs it, remove it", "name", name, "err", err)
			found.closed = append(found.closed, name)
		}
	}
	return found, nil
}
