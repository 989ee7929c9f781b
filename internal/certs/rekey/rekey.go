package rekey

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/http"
	"path"
	"sync"
	"time"

	"github.com/caddyserver/certmagic"

	"github.com/flotilla-ha/flotilla/internal/clocks"
	"github.com/flotilla-ha/flotilla/internal/keyspace"
)

// Compromised ends the key of a private key that certmagic or flotilla has put aside because others
// may know it.
const Compromised = ".compromised"

const (
	keepEnded     = 30 * 24 * time.Hour // how long the plan of a re-keying stays after its end
	unlockTimeout = 5 * time.Second
)

// ErrUnwanted means that no node is known to serve a name.
var ErrUnwanted = errors.New("no node is known to serve the name")

// ErrUnsaved means that an authority has issued a certificate that could not be stored.
var ErrUnsaved = errors.New("the new certificate is lost, since it could not be stored")

// Config is what a rekeyer needs. All fields but PerNode, Roots and Network are required.
type Config struct {
	Certmagic *certmagic.Config // its issuers
	Shared    certmagic.Storage // of the cluster
	PerNode   bool              // no node serves the certificates in Shared
	Damaged   string            // the directory of copies of damaged records
	Clocks    *clocks.Clocks    // to know whether a certificate has expired

	// Wanted returns the name to order for the certificate in a directory of the storage, whose
	// subject was name. The error wraps ErrUnwanted if nobody is known to serve it, and is another
	// one if that cannot be known now.
	Wanted func(ctx context.Context, site, name string) (string, error)
	// Order orders a certificate with a new private key for a name, in any case. The error wraps
	// ErrUnsaved if there is one now, but not in the storage.
	Order func(ctx context.Context, name string) error
	// Held returns why no order for a name may be placed now, nil if one may.
	Held func(name string) error
	// RevocationHeld returns why no certificate of an issuer may be revoked now, nil if one may.
	RevocationHeld func(issuer certmagic.Issuer) error
	// Barrier waits until every node's storage has what this node's has, but not for long: a node
	// that does not answer holds nobody up.
	Barrier func(ctx context.Context)

	Roots   *x509.CertPool    // for authorities that no issuer is for any more; nil: the system's
	Network http.RoundTripper // for requests to them; nil: the real one
	Log     *slog.Logger
}

// Rekeyer replaces keys. Its methods are safe for concurrent use.
type Rekeyer struct {
	Config
	records
	orders chan struct{} // holds an element for each order under way
	calls  chan struct{} // and for each other step

	mu      sync.Mutex
	stopped map[string]string // why Run cannot go on at all, by ID
}

// New returns a rekeyer.
func New(cfg Config) *Rekeyer {
	return &Rekeyer{Config: cfg, records: records{cfg.Shared, cfg.Log}, orders: make(chan struct{}, atOnce), calls: make(chan struct{}, atOnce), stopped: make(map[string]string)}
}

// Run makes worthless what somebody may know of the certificates and accounts that the storage has
// when Run is called for the first time with this id. It returns when that is done, and what
// earlier ids have left undone, or when ctx ends. What fails is tried again. It can be interrupted
// at any moment, and repeated on any node; one works at a time.
//
// Call it when those who know the keys can read the storage no more: the new keys are stored there.
func (r *Rekeyer) Run(ctx context.Context, id string) error {
	if err := checkID(id); err != nil {
		return err
	}
	for failures := 0; ; failures++ {
		err := r.once(ctx, id)
		if err == nil {
			return nil
		}
		if ctx.Err() != nil {
			return fmt.Errorf("replacing the keys of certificates: %w", context.Cause(ctx))
		}
		pause := backOff(failures)
		r.stop(id, fmt.Sprintf("the keys of certificates cannot be replaced: %v; tried again at %s", err, time.Now().Add(pause).UTC().Format(time.RFC3339)))
		r.Log.Warn("the keys of certificates cannot be replaced; will try again", "id", id, "error", err, "in", pause)
		sleep(ctx, pause)
	}
}

// stop records why Run cannot go on, nothing if why is empty.
func (r *Rekeyer) stop(id, why string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.stopped[id] = why; why == "" {
		delete(r.stopped, id)
	}
}

// once does the work of Run under the lock, until something fails that concerns all of it.
func (r *Rekeyer) once(ctx context.Context, id string) error {
	held := false
	if try, ok := r.Shared.(certmagic.TryLocker); ok {
		var err error
		if held, err = try.TryLock(ctx, keyspace.RekeyLock); err != nil {
			return err
		}
	}
	if !held {
		r.Log.Info("another node replaces the keys of certificates; this one waits until it has ended", "id", id)
		if err := r.Shared.Lock(ctx, keyspace.RekeyLock); err != nil {
			return err
		}
	}
	defer r.unlock(ctx, keyspace.RekeyLock)
	if err := r.open(ctx, id); err != nil {
		return err
	}
	ids, err := r.unfinished(ctx)
	if err != nil {
		return err
	}
	r.stop(id, "")
	w := &work{Rekeyer: r, known: make(map[string]bool), urls: make(map[string]string), newRoot: make(chan struct{})}
	for _, id := range ids {
		if err := w.add(ctx, id); err != nil {
			return err
		}
	}
	return w.run(ctx)
}

// lock waits for a lock that an order may hold, but not for long. unlock gives it back.
func (r *Rekeyer) lock(ctx context.Context, name string) (unlock func(), err error) {
	bounded, cancel := context.WithTimeout(ctx, lockWait)
	defer cancel()
	if err := r.Shared.Lock(bounded, name); err != nil {
		return nil, err
	}
	return func() { r.unlock(ctx, name) }, nil
}

// unlock gives a lock back, whether or not ctx is over. One that cannot be given back ends with
// this node's session.
func (r *Rekeyer) unlock(ctx context.Context, name string) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), unlockTimeout)
	defer cancel()
	if err := r.Shared.Unlock(ctx, name); err != nil {
		r.Log.Debug("a lock was not given back", "lock", name, "error", err)
	}
}

// Progress returns how far the re-keying of that ID is. Any node can be asked. Only the one that
// calls Run knows why that cannot go on at all, as when the storage has no room for the list.
func (r *Rekeyer) Progress(ctx context.Context, id string) (Progress, error) {
	out, err := r.progress(ctx, id)
	r.mu.Lock()
	defer r.mu.Unlock()
	if why := r.stopped[id]; why != "" && err == nil && !out.Done {
		out.Trouble = append(out.Trouble, why)
	}
	return out, err
}

func (r *Rekeyer) progress(ctx context.Context, id string) (Progress, error) {
	if err := checkID(id); err != nil {
		return Progress{}, err
	}
	var p plan
	if err := r.load(ctx, planPlace(id), &p); errors.Is(err, fs.ErrNotExist) {
		return Progress{}, nil
	} else if err != nil {
		return Progress{}, fmt.Errorf("the progress of a re-keying: %w", err)
	}
	out := Progress{Begun: true, Done: !p.Ended.IsZero()}
	if !out.Done {
		accounts, certificates, err := r.loadItems(ctx, id)
		if err == nil {
			p.count(accounts, certificates)
			err = r.load(ctx, troublePlace(id), &out.Trouble)
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return Progress{}, fmt.Errorf("the progress of a re-keying: %w", err)
		}
	}
	out.Accounts, out.Certificates, out.Notes = p.Accounts, p.Certificates, p.Notes
	out.RolledOver, out.Rekeyed, out.Revoked, out.Deleted = p.RolledOver, p.Rekeyed, p.Revoked, p.Deleted
	return out, nil
}

// Sweep deletes the records of re-keyings that have ended a long time ago, unless this node's clock
// is not to be relied on.
func (r *Rekeyer) Sweep(ctx context.Context) {
	if r.Clocks.Check(clocks.MaxOffset) != nil {
		return
	}
	dirs, err := r.list(ctx, Place, false)
	if err != nil {
		return // the sweeper of the storage reports the error
	}
	for _, dir := range dirs {
		var p plan
		if r.load(ctx, planPlace(path.Base(dir)), &p) != nil || p.Ended.IsZero() {
			continue
		}
		if r.Clocks.Now().Sub(p.Ended) < keepEnded {
			r.tidy(ctx, path.Base(dir))
			continue
		}
		if err := r.Shared.Delete(ctx, dir); err != nil && ctx.Err() == nil {
			r.Log.Warn("the record of a re-keying cannot be deleted; will try again", "key", dir, "error", err)
		}
	}
}
