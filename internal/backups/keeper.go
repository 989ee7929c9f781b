package backups

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/flotilla-ha/flotilla/event"
	"github.com/flotilla-ha/flotilla/internal/notify"
)

const (
	quiet    = 3 * time.Second  // after the first change of certificates, for those that come with it
	share    = 4                // the pause after a backup is so many times as long as it took
	shortest = 5 * time.Second  // pause after a backup
	longest  = 7 * time.Second  // so that the next one is made ten seconds after a change
	firstTry = 10 * time.Second // after a failure; the pause doubles
	laterTry = 10 * time.Minute // up to this
	stuck    = time.Minute      // a backup that takes longer is a failure
	patience = 2 * time.Second  // for the one under way, when ctx has ended
)

// Made describes a backup that was made or read.
type Made struct {
	Index uint64    // of the last entry that it includes
	Time  time.Time // when it was made, by the clock of the node that made it
	Size  int64     // in bytes
}

// Verified describes a backup that counts.
type Verified struct {
	Made
	Name string // in the Store
	Node string // the name of the node that made it
}

// Config is what a Keeper needs. All fields are needed.
type Config struct {
	Store Store         // keeps the backups
	Every time.Duration // how old the newest backup may become
	Keep  int           // periods of Every for which a backup is kept

	// Make writes a backup, and Verify restores one into memory.
	Make   func(ctx context.Context, w io.Writer) (Made, error)
	Verify func(r io.Reader) (Made, error)

	// Record tells the cluster of a backup that counts. Last returns the last one, and false if there
	// was none.
	Record func(ctx context.Context, v Verified) error
	Last   func() (Verified, bool)

	// Changed returns the index of the newest entry that has changed a certificate. Changes is
	// notified after such an entry.
	Changed func() uint64
	Changes *notify.Signal

	Cluster func() string // the cluster's ID
	Node    func() string // this node's name
	Log     *slog.Logger
}

// Keeper makes the backups of a cluster. Make one with New.
type Keeper struct {
	cfg     Config
	failure atomic.Pointer[string]
	working atomic.Pointer[time.Time] // when the backup under way began; nil: there is none

	// Of the goroutine of Run alone.
	begun    time.Time // when Run began
	noticed  time.Time // when a certificate has changed since the last backup; zero: none has
	notUntil time.Time // another backup
	pause    time.Duration
	unread   []Verified // stored since the last one that counts, and not read back yet
	former   string     // the name of the last one that counted when Run began; empty: none had
	apart    apart
}

// unreadError says that a backup is stored, and that it could not be read back: it may be whole.
type unreadError struct{ err error }

func (e *unreadError) Error() string { return e.err.Error() }
func (e *unreadError) Unwrap() error { return e.err }

// New returns a Keeper that does nothing before Run.
func New(cfg Config) *Keeper { return &Keeper{cfg: cfg} }

// Failure says why the last attempt of this node has failed, or that the one under way takes long.
// It is empty if all is well, and while Run does not run.
func (k *Keeper) Failure() string {
	if began := k.working.Load(); began != nil && time.Since(*began) > stuck {
		return "a backup was begun at " + began.UTC().Format(time.RFC3339) + " and is not done; is the place where it is stored in order?"
	}
	if why := k.failure.Load(); why != nil {
		return *why
	}
	return ""
}

// Run makes backups until ctx ends, and returns why it has ended.
func (k *Keeper) Run(ctx context.Context) error {
	k.begun, k.noticed, k.notUntil, k.pause, k.unread = time.Now(), time.Time{}, time.Time{}, 0, nil
	last, _ := k.cfg.Last()
	k.former, k.apart = last.Name, apart{}
	defer k.failure.Store(nil)
	return notify.Loop(ctx, func() (next time.Time, done bool) {
		if due := k.due(time.Now()); time.Now().Before(due) {
			return due, false
		}
		if ctx.Err() == nil {
			k.attempt(ctx)
		}
		return k.due(time.Now()), false
	}, k.cfg.Changes)
}

// due returns when the next backup is to be made.
func (k *Keeper) due(now time.Time) time.Time {
	last, ok := k.cfg.Last()
	due := now
	if ok {
		// A time in the future is that of another clock.
		due = minTime(last.Time.Add(k.cfg.Every), maxTime(k.begun, k.notUntil).Add(k.cfg.Every))
		if k.cfg.Changed() <= last.Index {
			k.noticed = time.Time{}
		} else if k.noticed.IsZero() {
			k.noticed = now
		}
		if !k.noticed.IsZero() {
			due = minTime(due, k.noticed.Add(quiet))
		}
	}
	return maxTime(due, k.notUntil)
}

// attempt makes a backup and removes old ones, or says why not.
func (k *Keeper) attempt(ctx context.Context) {
	began := time.Now()
	k.working.Store(&began)
	defer k.working.Store(nil)
	stored := k.stored(began)
	v, err := bounded(ctx, k.cfg.Log, func() (Verified, error) { return k.backup(ctx, stored) })
	took := time.Since(began)
	if ctx.Err() != nil {
		return
	}
	if stored != nil {
		k.unread = k.unread[:len(k.unread)-1]
	}
	if errors.As(err, new(*unreadError)) {
		k.unread = append(k.unread, v)
	}
	if err != nil {
		why := err.Error()
		k.failure.Store(&why)
		k.pause = min(max(2*k.pause, firstTry), laterTry)
		k.notUntil = time.Now().Add(k.pause)
		k.cfg.Log.Warn("no backup was made; it is tried again", "event", event.BackupFailed, "in", k.pause, "err", err)
		return
	}
	k.failure.Store(nil)
	k.pause = 0
	k.notUntil = time.Now().Add(min(max(shortest, share*took), longest))
	k.cfg.Log.Info("a backup was made and verified", "event", event.BackupMade, "name", v.Name, "entry", v.Index, "bytes", v.Size, "took", took)
	known := k.apart
	for _, v := range k.unread {
		known.failed = append(known.failed, v.Name)
	}
	k.unread = nil
	k.apart, err = bounded(ctx, k.cfg.Log, func() (apart, error) { return k.clean(ctx, known) })
	if err != nil && ctx.Err() == nil {
		k.cfg.Log.Warn("old backups were not removed; that is tried again after the next one", "err", err)
	}
}

// stored returns the backup that was stored and not read back, if that is still the one to make.
func (k *Keeper) stored(now time.Time) *Verified {
	if len(k.unread) == 0 {
		return nil
	}
	last := k.unread[len(k.unread)-1]
	if k.cfg.Changed() > last.Index || now.Sub(last.Time) >= k.cfg.Every {
		return nil
	}
	return &last
}

// bounded returns what f returns, and leaves a store alone that hangs when ctx ends: the node must
// be able to close.
func bounded[T any](ctx context.Context, log *slog.Logger, f func() (T, error)) (out T, err error) {
	type result struct {
		out T
		err error
	}
	done := make(chan result, 1)
	go func() {
		out, err := f()
		done <- result{out, err}
	}()
	select {
	case r := <-done:
		return r.out, r.err
	case <-ctx.Done():
	}
	select {
	case r := <-done:
		return r.out, r.err
	case <-time.After(patience):
		log.Warn("the place where backups are stored hangs, and is left alone")
	}
	return out, context.Cause(ctx)
}

// backup makes one backup that counts: of one that is stored already, if there is one.
func (k *Keeper) backup(ctx context.Context, stored *Verified) (Verified, error) {
	v := Verified{Name: Name(k.cfg.Cluster(), time.Now()), Node: k.cfg.Node()}
	if stored != nil {
		v = *stored
	} else {
		err := k.cfg.Store.Save(ctx, v.Name, func(w io.Writer) (err error) {
			v.Made, err = k.cfg.Make(ctx, w)
			return err
		})
		if err != nil {
			return v, fmt.Errorf("storing it: %w", err)
		}
	}
	if err := k.verify(ctx, v); errors.As(err, new(*unreadError)) {
		return v, fmt.Errorf("it is stored, and counts when it can be read back: %w", err)
	} else if err != nil {
		return v, errors.Join(fmt.Errorf("it cannot be restored, and is removed: %w", err), k.cfg.Store.Remove(ctx, v.Name))
	}
	if ctx.Err() != nil { // this node may not be the one any more
		return v, context.Cause(ctx)
	}
	if err := k.cfg.Record(ctx, v); err != nil {
		return v, fmt.Errorf("telling the cluster of it: %w", err)
	}
	return v, nil
}

// verify reads a backup back and restores it. An *unreadError says nothing of its content.
func (k *Keeper) verify(ctx context.Context, v Verified) error {
	got, err := k.read(ctx, v.Name)
	if err == nil && (got.Index != v.Index || got.Size != v.Size) {
		err = fmt.Errorf("%d bytes up to entry %d were stored, and %d bytes up to entry %d come back", v.Size, v.Index, got.Size, got.Index)
	}
	return err
}

// read reads a backup and restores it. An *unreadError says nothing of its content.
func (k *Keeper) read(ctx context.Context, name string) (Made, error) {
	r, err := k.cfg.Store.Load(ctx, name)
	if errors.Is(err, fs.ErrNotExist) {
		return Made{}, err
	}
	if err != nil {
		return Made{}, &unreadError{err}
	}
	content := &watched{r: r}
	got, err := k.cfg.Verify(content)
	if failed := errors.Join(content.err, r.Close()); failed != nil {
		return Made{}, &unreadError{failed}
	}
	return got, err
}

// watched keeps the error of a reader.
type watched struct {
	r   io.Reader
	err error // nil: there was none but io.EOF
}

func (w *watched) Read(p []byte) (int, error) {
	n, err := w.r.Read(p)
	if err != nil && err != io.EOF {
		w.err = err
	}
	return n, err
}

func minTime(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

func maxTime(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}
