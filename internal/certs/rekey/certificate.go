package rekey

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strings"
	"time"

	"github.com/caddyserver/certmagic"

	"github.com/flotilla-ha/flotilla/event"
	"github.com/flotilla-ha/flotilla/internal/certs/devca"
	"github.com/flotilla-ha/flotilla/internal/clocks"
	"github.com/flotilla-ha/flotilla/internal/keyspace"
)

const (
	settle     = 10 * time.Second // for all nodes to load a certificate that is stored
	unwantedIn = 10 * time.Minute // for a name to be declared, or allowed
	reorderIn  = 2 * time.Minute  // for another node to order a certificate that was withdrawn
	sameKey    = time.Hour        // after an order that brought the old key

	unsavedFirst = time.Hour // after an order whose certificate could not be stored; doubled with each
	unsavedLast  = 48 * time.Hour

	lockWait = time.Minute // for the lock of a name, or of registrations

	wantedTimeout = time.Minute // for the program to say whether it wants a name
)

var (
	errSameKey = errors.New("the new certificate has the old key: see the KeySource that TLS.Configure sets")
)

// job is a certificate while it is worked on.
type job struct {
	*certificate
	unwanted time.Time // since when nobody was known to serve the name; zero: that is not so
	since    time.Time // when the state was reached, or found

	next  time.Time     // no order before: certificates that cannot be stored use up a limit
	pause time.Duration // the one until next
	lost  error         // of the last such order
}

// step does what is due for a certificate. It is nil when nothing is left.
func (w *work) step(ctx context.Context, j *job) error {
	if j.since.IsZero() {
		j.since = time.Now()
	}
	switch j.State {
	case planned:
		return w.replace(ctx, j)
	case replaced, withdrawn:
		return w.retire(ctx, j)
	}
	return nil
}

// move records that a certificate has reached a state.
func (w *work) move(ctx context.Context, j *job, state string) error {
	next := *j.certificate
	if next.State = state; next.isDone() {
		next.Leaf, next.Key, next.CA, next.Data = nil, "", "", nil
	}
	if err := w.save(ctx, j.place, &next); err != nil {
		return err
	}
	*j.certificate, j.since = next, time.Now()
	return nil
}

// replace has a certificate with another key ordered, unless there is one.
func (w *work) replace(ctx context.Context, j *job) error {
	if isOwn(j.certificate) {
		select {
		case <-w.newRoot:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	other, err := w.otherKey(ctx, j.certificate)
	if err == nil && !other {
		var name string
		err = w.within(ctx, w.calls, func() (err error) {
			ctx, cancel := context.WithTimeout(ctx, wantedTimeout)
			defer cancel()
			name, err = w.wanted(ctx, j)
			return err
		})
		switch {
		case errors.Is(err, ErrUnwanted):
			return w.withdraw(ctx, j, err)
		case err == nil:
			j.unwanted = time.Time{}
			if err = w.order(ctx, j, name); err == nil {
				if other, err = w.otherKey(ctx, j.certificate); err == nil && !other {
					return &waiting{errSameKey.Error(), sameKey}
				}
			}
		}
	}
	if err != nil {
		if leaf, bad := x509.ParseCertificate(j.Leaf); bad != nil || !w.hasExpired(leaf) {
			return err
		}
		// It is worth nothing. The nodes that serve the name go on ordering another one.
		return w.move(ctx, j, revoked)
	}
	w.Log.Info("a certificate has another key", "event", event.CertificateReplaced, "domain", j.Name)
	if err := w.move(ctx, j, replaced); err != nil {
		return err
	}
	return w.retire(ctx, j)
}

// order is Order, at growing pauses while certificates cannot be stored.
func (w *work) order(ctx context.Context, j *job, name string) error {
	if !time.Now().Before(j.next) {
		err := w.within(ctx, w.orders, func() error { return w.Order(ctx, name) })
		if !errors.Is(err, ErrUnsaved) {
			return err
		}
		j.pause = min(max(2*j.pause, unsavedFirst), unsavedLast)
		j.next, j.lost = time.Now().Add(j.pause), err
	}
	return &waiting{fmt.Sprintf("%v; make room in the storage, no other order before %s", j.lost, j.next.UTC().Format(time.RFC3339)),
		min(time.Until(j.next), retryLast)}
}

// wanted is Wanted, for certificates that some node may serve.
func (w *work) wanted(ctx context.Context, j *job) (string, error) {
	if w.PerNode {
		return "", ErrUnwanted
	}
	return w.Wanted(ctx, j.Site, j.Name)
}

// within does something while it holds a slot.
func (w *work) within(ctx context.Context, slots chan struct{}, do func() error) error {
	select {
	case slots <- struct{}{}:
		defer func() { <-slots }()
		return do()
	case <-ctx.Done():
		return ctx.Err()
	}
}

// otherKey reports whether the storage has a certificate for the name that is valid, has a key that
// nobody else knows, and comes from an authority whose key nobody else knows.
func (w *work) otherKey(ctx context.Context, c *certificate) (bool, error) {
	if w.PerNode {
		return false, nil
	}
	for _, i := range w.Certmagic.Issuers {
		dir := certmagic.StorageKeys.Safe(i.IssuerKey())
		stem := "certificates/" + dir + "/" + c.Site + "/" + c.Site
		leaf, err := w.stored(ctx, stem)
		if err != nil || leaf == nil {
			if err != nil {
				return false, err
			}
			continue
		}
		if w.known[hashOf(leaf.RawSubjectPublicKeyInfo)] || w.Clocks.Now().After(leaf.NotAfter.Add(clocks.Tolerance)) {
			continue
		}
		if dir == keyspace.DevIssuer {
			root, err := (&devca.Issuer{Storage: w.Shared}).Root(ctx)
			if err != nil {
				return false, err
			}
			if leaf.CheckSignatureFrom(root) != nil {
				continue
			}
		}
		return true, nil
	}
	return false, nil
}

// stored returns the leaf of a certificate that is complete in the storage, nil if there is none.
func (w *work) stored(ctx context.Context, stem string) (*x509.Certificate, error) {
	parts := make(map[string][]byte)
	for _, ext := range []string{".crt", ".key", ".json"} {
		value, err := w.Shared.Load(ctx, stem+ext)
		if errors.Is(err, fs.ErrNotExist) {
			return nil, nil
		}
		if err != nil {
			return nil, err
		}
		parts[ext] = value
	}
	leaf, err := decodeLeaf(parts[".crt"])
	key, bad := decodeKey(parts[".key"])
	if err != nil || bad != nil || spkiOf(key) != hashOf(leaf.RawSubjectPublicKeyInfo) {
		return nil, nil // it is being written, or damaged
	}
	return leaf, nil
}

// withdraw deletes the key of a certificate that nobody has been known to serve for a while. A node
// that serves the name after all orders another one, and goes on with what is in memory until then.
func (w *work) withdraw(ctx context.Context, j *job, why error) error {
	if j.unwanted.IsZero() {
		j.unwanted = time.Now()
	}
	if left := time.Until(j.unwanted.Add(unwantedIn)); left > 0 && !w.PerNode {
		return &waiting{why.Error() + "; if that stays so, the certificate is revoked and deleted", left}
	}
	if err := w.remove(ctx, j.certificate, ".key", ".json"); err != nil {
		return err
	}
	w.Log.Info("the certificate of a name that nobody serves is revoked and deleted", "domain", j.Name, "reason", why)
	if err := w.move(ctx, j, withdrawn); err != nil {
		return err
	}
	return w.retire(ctx, j)
}

// remove deletes parts of a certificate, or all of its directory, if it still is the one with the
// old key. The lock keeps others from storing another one at that moment.
func (w *work) remove(ctx context.Context, c *certificate, parts ...string) error {
	unlock, err := w.lock(ctx, keyspace.IssueLock+c.Name)
	if err != nil {
		return fmt.Errorf("the lock of the name, which an order may hold: %w", err)
	}
	defer unlock()
	text, err := w.Shared.Load(ctx, c.stem()+".crt")
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if leaf, err := decodeLeaf(text); err != nil || hashOf(leaf.RawSubjectPublicKeyInfo) != c.SPKI {
		return nil
	}
	if len(parts) == 0 {
		return w.Shared.Delete(ctx, c.dir())
	}
	for _, ext := range parts {
		if err := w.Shared.Delete(ctx, c.stem()+ext); err != nil {
			return err
		}
	}
	return nil
}

// retire revokes a certificate when no node serves it any more.
func (w *work) retire(ctx context.Context, j *job) error {
	pause, unserved := settle, j.State == withdrawn && !w.PerNode
	if unserved {
		pause = reorderIn
		other, err := w.otherKey(ctx, j.certificate)
		if err != nil {
			return err
		}
		if other {
			if err := w.move(ctx, j, replaced); err != nil {
				return err
			}
		}
		if err := w.Held(j.Name); err != nil && !other {
			j.since = time.Now() // a node that serves the name has had no time to order another one
			return &waiting{"its order has to wait, if a node serves the name: " + err.Error(), settle}
		}
	}
	if left := time.Until(j.since.Add(pause)); left > 0 {
		return &waiting{d: min(left, settle)}
	}
	if unserved && j.State == withdrawn {
		switch under, err := w.ordering(ctx, j.Name); {
		case err != nil:
			return err
		case under:
			return &waiting{"another certificate is being ordered", reorderIn}
		}
	}
	err := w.within(ctx, w.calls, func() error {
		// a barrier is a write: none for a request that is not sent
		if i := w.issuer(j.Issuer); i != nil && !isOwn(j.certificate) {
			leaf, err := x509.ParseCertificate(j.Leaf)
			if held := w.RevocationHeld(i); held != nil && err == nil && !w.hasExpired(leaf) {
				return held
			}
		}
		w.Barrier(ctx)
		return w.revoke(ctx, j.certificate)
	})
	if err != nil {
		return fmt.Errorf("the old certificate is not revoked: %w", err)
	}
	// What another issuer's has replaced is still there.
	if err := w.remove(ctx, j.certificate); err != nil {
		return err
	}
	done := revoked
	if j.State == withdrawn {
		done = deleted
	}
	if err := w.move(ctx, j, done); err != nil {
		return err
	}
	w.Log.Info("the old certificate is worthless", "domain", j.Name, "issuer", j.Issuer)
	return nil
}

// ordering reports whether somebody has the lock of a name, as for an order that is in the queue.
func (w *work) ordering(ctx context.Context, name string) (bool, error) {
	try, ok := w.Shared.(certmagic.TryLocker)
	if !ok {
		return false, nil
	}
	free, err := try.TryLock(ctx, keyspace.IssueLock+name)
	if err != nil || !free {
		return !free, err
	}
	return false, w.Shared.Unlock(ctx, keyspace.IssueLock+name)
}

// forgetKeys deletes the private keys that nothing needs any more: those that were put aside
// because others may know them, and those among the damaged records.
func (w *work) forgetKeys(ctx context.Context) error {
	keys, err := w.list(ctx, "certificates", true)
	if err != nil {
		return err
	}
	for _, key := range keys {
		private, ok := strings.CutSuffix(key, Compromised)
		if !ok {
			continue
		}
		// without a key the certificate is being ordered anew, and the mark is needed then
		if _, err := w.Shared.Stat(ctx, private); errors.Is(err, fs.ErrNotExist) {
			if _, err := w.Shared.Stat(ctx, strings.TrimSuffix(private, ".key")+".crt"); err == nil {
				continue
			}
		} else if err != nil {
			return err
		}
		if err := w.Shared.Delete(ctx, key); err != nil {
			return err
		}
	}
	if keys, err = w.list(ctx, w.Damaged, true); err != nil {
		return err
	}
	for _, key := range keys {
		if ext := path.Ext(key); ext == ".key" || ext == Compromised {
			if err := w.Shared.Delete(ctx, key); err != nil {
				return err
			}
		}
	}
	return nil
}
