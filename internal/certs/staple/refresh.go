package staple

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"path"
	"time"

	"golang.org/x/crypto/ocsp"

	"github.com/flotilla-ha/flotilla/event"
	"github.com/flotilla-ha/flotilla/internal/keyspace"
)

// refresh gets an answer for x from the storage. If the storage has none, or one that is half way
// through its life, refresh asks the responder.
func (s *Stapler) refresh(x *stapled) (*ocsp.Response, error) {
	select {
	case s.slots <- struct{}{}:
		defer func() { <-s.slots }()
	case <-s.life.Done():
		return nil, s.life.Err()
	}
	ctx, cancel := context.WithTimeout(s.life, timeout)
	defer cancel()
	chain := x.Certificate.Certificate.Certificate
	if len(chain) < 2 {
		return nil, errors.New("the chain has no certificate of the issuer")
	}
	issuer, err := x509.ParseCertificate(chain[1])
	if err != nil {
		return nil, fmt.Errorf("the issuer's certificate: %w", err)
	}
	if r := s.stored(ctx, x, issuer); r != nil {
		return r, nil
	}
	lock := keyspace.StapleLock + path.Base(x.key)
	bounded, stop := context.WithTimeout(ctx, LockTimeout)
	locked := s.Storage.Lock(bounded, lock) == nil
	stop()
	if locked {
		defer func() {
			ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), unlockTimeout)
			defer cancel()
			s.Storage.Unlock(ctx, lock) // a lock that is not given back ends with this node's session
		}()
		if r := s.stored(ctx, x, issuer); r != nil {
			return r, nil
		}
	}
	r, err := s.ask(ctx, x, issuer)
	if err != nil {
		return nil, err
	}
	if news := s.take(x, r); !locked || !news && r.Status != ocsp.Revoked {
		return r, nil
	}
	if err := s.Storage.Store(ctx, x.key, r.Raw); err != nil {
		s.Log.Debug("OCSP staple is not in the storage", "domain", x.Names[0], "error", err)
	} else if r.Status == ocsp.Revoked {
		s.Revoked(x.Certificate, r)
	}
	return r, nil
}

// stored takes what the storage has for x, and returns it if the responder need not be asked. The
// answer that a certificate was revoked stands for an hour, as a sign that it is being replaced.
func (s *Stapler) stored(ctx context.Context, x *stapled, issuer *x509.Certificate) *ocsp.Response {
	raw, err := s.Storage.Load(ctx, x.key)
	if err != nil {
		return nil
	}
	r, err := read(raw, x.Leaf, issuer, time.Now())
	if err != nil {
		return nil // the next good one replaces it
	}
	s.take(x, r)
	if r.Status == ocsp.Revoked {
		info, err := s.Storage.Stat(ctx, x.key)
		if err != nil || time.Since(info.Modified) >= RevokedRest {
			return nil
		}
	} else if !time.Now().Before(half(r)) {
		return nil
	}
	return r
}

// take makes r the answer unless there is a newer one, and reports whether it is news.
func (s *Stapler) take(x *stapled, r *ocsp.Response) bool {
	old := x.answer.Load()
	if old != nil && (r.ThisUpdate.Before(old.ThisUpdate) || bytes.Equal(r.Raw, old.Raw)) {
		return false
	}
	x.answer.Store(r)
	if r.Status == ocsp.Revoked && (old == nil || old.Status != ocsp.Revoked) {
		s.Log.Error("certificate has been revoked by its authority", "event", event.CertificateRevoked, "domain", x.Names[0],
			"serial", x.Leaf.SerialNumber.Text(16), "since", r.RevokedAt, "reason", reasonOf(r.RevocationReason))
	}
	return true
}

// reasonOf returns what the number of a reason for a revocation means (RFC 5280, 5.3.1).
func reasonOf(number int) string {
	switch number {
	case ocsp.Unspecified:
		return "the authority gives no reason"
	case ocsp.KeyCompromise:
		return "others may know its key"
	case ocsp.CACompromise:
		return "others may know the authority's key"
	case ocsp.AffiliationChanged:
		return "what it says of its owner is no longer right"
	case ocsp.Superseded:
		return "it was replaced"
	case ocsp.CessationOfOperation:
		return "its owner no longer uses the name"
	case ocsp.PrivilegeWithdrawn:
		return "its owner may no longer have it"
	}
	return fmt.Sprintf("reason %d of RFC 5280", number)
}
