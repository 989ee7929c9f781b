package certs

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"slices"
	"sync"

	"github.com/caddyserver/certmagic"

	"github.com/flotilla-ha/flotilla/event"
	"github.com/flotilla-ha/flotilla/internal/certs/devca"
	"github.com/flotilla-ha/flotilla/internal/hostname"
)

// loader brings certificates from the storage into memory. Its methods are safe for concurrent use.
type loader struct {
	config  *certmagic.Config
	cache   *certmagic.Cache
	names   *nameTable
	life    context.Context
	barrier func(context.Context)
	log     *slog.Logger

	// Of the last order of this node for a directory, until its certificate is served: the serial
	// number, empty while the order is under way.
	own sync.Map

	mu   sync.Mutex
	busy map[string]chan struct{} // of a directory that is being loaded; closed at the end
}

// solvesDNS reports whether some issuer can issue for a wildcard.
func (l *loader) solvesDNS() bool {
	return slices.ContainsFunc(l.config.Issuers, func(i certmagic.Issuer) bool {
		acme, ok := i.(*certmagic.ACMEIssuer)
		return !ok || acme.DNS01Solver != nil
	})
}

// isLocal reports whether the authority within the cluster is the only issuer. It answers at once,
// so clients wait for it instead of getting a self-signed certificate, and orders are not limited.
func (l *loader) isLocal() bool {
	return !slices.ContainsFunc(l.config.Issuers, func(i certmagic.Issuer) bool {
		_, dev := i.(*devca.Issuer)
		return !dev
	})
}

// site returns the directory in the storage, below that of the issuer, in which certmagic keeps the
// certificate of name.
func (l *loader) site(name string) string { return certmagic.StorageKeys.Safe(l.subject(name)) }

// subject returns the name that is ordered for name.
func (l *loader) subject(name string) string {
	if l.config.SubjectTransformer != nil {
		return l.config.SubjectTransformer(l.life, name)
	}
	return name
}

// matching returns the certificates in memory for name, or for a wildcard that covers it.
func (l *loader) matching(name string) []certmagic.Certificate {
	if len(name) > hostname.MaxLength {
		return nil
	}
	all := l.cache.AllMatchingCertificates(name)
	return slices.DeleteFunc(all, func(x certmagic.Certificate) bool { return x.Leaf == nil })
}

// exact returns the certificates in memory for exactly this name.
func (l *loader) exact(name string) []certmagic.Certificate {
	return slices.DeleteFunc(l.matching(name), func(x certmagic.Certificate) bool {
		return !slices.Contains(x.Names, name)
	})
}

// serves reports whether a certificate for name is in memory that has not expired.
func (l *loader) serves(name string) bool {
	return slices.ContainsFunc(l.matching(name), func(x certmagic.Certificate) bool { return !x.Expired() })
}

// refresh makes this node serve the certificate that the storage has for name, whichever node
// obtained it. certmagic itself looks into the storage only when the one in memory is due.
func (l *loader) refresh(ctx context.Context, name string) error {
	// One at a time: the slower of two could remove what the faster has just loaded.
	done, err := l.reserve(ctx, l.site(name))
	if err != nil {
		return err
	}
	defer done()
	if l.names.isNone(name) {
		if has, err := l.inStorage(ctx, name); err == nil && has {
			// Other nodes serve a self-signed one until they have this, and none may after this node
			// does not.
			l.barrier(ctx)
		}
	}
	old := l.matching(name)
	cert, err := l.config.CacheManagedCertificate(ctx, name)
	if err != nil {
		return err
	}
	l.found(name)
	// A handshake takes the first that is valid. So the older ones have to go, now that the new one
	// is there.
	var stale []string
	for _, o := range old {
		if o.Hash() != cert.Hash() && slices.Equal(o.Names, cert.Names) && (o.Expired() || !cert.Expired()) {
			stale = append(stale, o.Hash())
		}
	}
	serial := cert.Leaf.SerialNumber.Text(16)
	own := l.isOwn(name, serial)
	if len(stale) == 0 {
		return nil
	}
	l.cache.Remove(stale)
	if own { // the order was logged
		l.log.Debug("a newer certificate is being served", "domain", name, "serial", serial)
	} else {
		l.log.Info("a newer certificate is being served", "event", event.CertificateServed, "domain", name, "serial", serial)
	}
	return nil
}

// ordering records that this node orders a certificate for name.
func (l *loader) ordering(name string) { l.own.Store(certmagic.StorageKeys.Safe(name), "") }

// notOrdered records that nothing came of the order.
func (l *loader) notOrdered(name string) { l.own.Delete(certmagic.StorageKeys.Safe(name)) }

// ordered records which certificate came of it.
func (l *loader) ordered(name, serial string) { l.own.Store(certmagic.StorageKeys.Safe(name), serial) }

// isOwn reports whether a certificate for name that has just come comes from this node's order. It
// answers so once for an order: certmagic does not always say how one has ended.
func (l *loader) isOwn(name, serial string) bool {
	site := l.site(name)
	own, ok := l.own.Load(site)
	if !ok || own != "" && own != serial {
		return false
	}
	l.own.CompareAndDelete(site, own)
	return true
}

// found records that the cluster has a certificate for name, even if it is of no use.
func (l *loader) found(name string) {
	if l.names.found(name) {
		l.log.Info("the self-signed certificate is not served any more", "domain", name)
	}
}

// withdraw takes the certificates of exactly this name out of memory.
func (l *loader) withdraw(name string) {
	var gone []string
	for _, x := range l.exact(name) {
		gone = append(gone, x.Hash())
	}
	l.cache.Remove(gone)
	l.own.Delete(l.site(name))
}

// inStorage reports whether the storage has a certificate for name, which may be damaged. An error
// means that this is not known.
func (l *loader) inStorage(ctx context.Context, name string) (bool, error) {
	return l.anyStored(ctx, l.keys(name))
}

// keys returns the keys that a certificate for name may have in the storage. certmagic takes tens
// of microseconds for them.
func (l *loader) keys(name string) (keys []string) {
	site := l.site(name)
	for _, i := range l.config.Issuers {
		keys = append(keys, certmagic.StorageKeys.SiteCert(i.IssuerKey(), site))
	}
	return keys
}

// issuerOf returns the key of the issuer whose certificate for name the storage has.
func (l *loader) issuerOf(ctx context.Context, name string) string {
	site := l.site(name)
	for _, i := range l.config.Issuers {
		if _, err := l.config.Storage.Stat(ctx, certmagic.StorageKeys.SiteCert(i.IssuerKey(), site)); err == nil {
			return i.IssuerKey()
		}
	}
	return l.config.Issuers[0].IssuerKey()
}

// anyStored reports whether the storage has one of the keys. An error means that this is not
// known.
func (l *loader) anyStored(ctx context.Context, keys []string) (bool, error) {
	for _, k := range keys {
		_, err := l.config.Storage.Stat(ctx, k)
		if err == nil || !errors.Is(err, fs.ErrNotExist) {
			return err == nil, err
		}
	}
	return false, nil
}

// reserve waits until nothing else loads from this directory of the storage. done lets the next one
// go on.
func (l *loader) reserve(ctx context.Context, site string) (done func(), err error) {
	for {
		l.mu.Lock()
		busy := l.busy[site]
		if busy == nil {
			mine := make(chan struct{})
			l.busy[site] = mine
			l.mu.Unlock()
			return func() {
				l.mu.Lock()
				delete(l.busy, site)
				l.mu.Unlock()
				close(mine)
			}, nil
		}
		l.mu.Unlock()
		select {
		case <-busy:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}
