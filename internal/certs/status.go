package certs

import (
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/caddyserver/certmagic"
	"github.com/mholt/acmez/v3/acme"

	"github.com/flotilla-ha/flotilla/internal/certs/backoff"
	"github.com/flotilla-ha/flotilla/internal/certs/staple"
)

const maxListed = 10 // names in one line

// Status is what is known about the certificate of one name.
type Status struct {
	Domain string // the name
	Serial string // in hexadecimal; empty: no certificate is loaded
	Issuer string // its common name
	// NotBefore and NotAfter are from when until when it is valid. Zero: no certificate is loaded.
	NotBefore, NotAfter time.Time
	// Renewal is when it is to be renewed: as the authority suggests, but not later than by its life.
	// Zero: no certificate is loaded.
	Renewal time.Time
	// OCSPNextUpdate is until when its OCSP staple is valid. Zero: it has none.
	OCSPNextUpdate time.Time
	Managed        bool // it is loaded, and renewed when due
	// SelfSigned says that there has never been a certificate, and a self-signed one is served.
	SelfSigned bool
	OnDemand   bool      // it was not declared: a handshake asked for it
	Err        error     // why there is no certificate, or only an old one, or nil
	Next       time.Time // of the next try, if there was an error
	Failures   int       // orders of the cluster that failed since the last one that succeeded
}

// shown returns the certificate that a handshake gets: the first valid one, else the first.
func shown(found []certmagic.Certificate) *certmagic.Certificate {
	return &found[max(0, slices.IndexFunc(found, func(x certmagic.Certificate) bool { return !x.Expired() }))]
}

// show takes over what the certificate that a handshake gets says of itself.
func (s *Status) show(found []certmagic.Certificate) {
	leaf := shown(found).Leaf
	s.Serial, s.Issuer, s.NotBefore, s.NotAfter = leaf.SerialNumber.Text(16), leaf.Issuer.CommonName, leaf.NotBefore, leaf.NotAfter
}

// plan takes over what changes while that certificate is served.
func (s *Status) plan(found []certmagic.Certificate, config *certmagic.Config, staples *staple.Stapler) {
	x := shown(found)
	s.Renewal, s.OCSPNextUpdate = renewalOf(x, config), staples.NextUpdate(x.Leaf)
}

// renewalOf returns when certmagic renews x at the latest: see certmagic's certNeedsRenewal. It
// does so up to an interval earlier.
func renewalOf(x *certmagic.Certificate, config *certmagic.Config) time.Time {
	life, share := x.Lifetime(), config.RenewalWindowRatio
	if share == 0 {
		share = certmagic.DefaultRenewalWindowRatio
	}
	left := max(time.Duration(share*float64(life)), 5*renewalInterval)
	at := x.Leaf.NotBefore.Add(life - left).Truncate(time.Second)
	if chosen := suggestionOf(x).SelectedTime; !config.DisableARI && !chosen.IsZero() && chosen.Before(at) {
		return chosen
	}
	return at
}

// suggestionOf returns when the authority suggests to renew x, the zero value if it does not, or if
// this version of certmagic has that elsewhere. certmagic exports nothing that leads to it.
func suggestionOf(x *certmagic.Certificate) acme.RenewalInfo {
	field := reflect.ValueOf(x).Elem().FieldByName("ari")
	if !field.IsValid() || field.Type() != reflect.TypeFor[acme.RenewalInfo]() {
		return acme.RenewalInfo{}
	}
	return *(*acme.RenewalInfo)(field.Addr().UnsafePointer())
}

// statuses returns what the table knows about each declared name, in alphabetical order.
func (t *nameTable) statuses() []Status {
	t.mu.Lock()
	all := make([]Status, 0, len(t.names))
	for _, name := range slices.Sorted(maps.Keys(t.names)) {
		m := t.names[name]
		s := Status{Domain: name, Err: m.err, Managed: m.err == nil, SelfSigned: m.none, Next: m.next}
		if s.Err == nil {
			s.Err = m.stale
		}
		if s.Err == nil {
			s.Err = m.damage
		}
		all = append(all, s)
	}
	t.mu.Unlock()
	return all
}

// status returns what is known about each declared name, in alphabetical order.
func status(l *loader, pauses *backoff.Backoff, staples *staple.Stapler) []Status {
	all := l.names.statuses()
	for i := range all {
		s := &all[i]
		if s.Err != nil {
			x, left := pauses.Get(backoff.OfName(s.Domain))
			if s.Failures = x.Failures; left > 0 && s.Next.IsZero() {
				s.Next = x.At.Add(x.Wait).Round(time.Second) // of certmagic's own renewals
			}
		}
		found := l.matching(s.Domain)
		if len(found) == 0 {
			s.Managed = false
			continue
		}
		s.SelfSigned = false // a wildcard's is there
		s.show(found)
		s.plan(found, l.config, staples)
		s.refused(pauses)
	}
	return all
}

// refused takes over that the authority has refused to renew a certificate which is due. Every node
// knows that, whichever of them had ordered.
func (s *Status) refused(pauses *backoff.Backoff) {
	if s.Err != nil || time.Now().Before(s.Renewal) {
		return
	}
	x, left := pauses.Get(backoff.OfName(s.Domain))
	if x.Failures == 0 || x.At.Before(s.NotBefore) {
		return
	}
	s.Err, s.Failures = fmt.Errorf("there is no newer certificate: %s", x.Err), x.Failures
	if left > 0 {
		s.Next = x.At.Add(x.Wait).Round(time.Second)
	}
}

// missing lists the names that have no certificate, and why.
func missing(l *loader) string {
	failed := l.names.failures()
	maps.DeleteFunc(failed, func(name string, _ error) bool { return len(l.matching(name)) > 0 })
	var all []string
	for _, name := range slices.Sorted(maps.Keys(failed)) {
		if len(all) == maxListed {
			all = append(all, fmt.Sprintf("and %d more", len(failed)-maxListed))
			break
		}
		all = append(all, name+": "+failed[name].Error())
	}
	return strings.Join(all, "; ")
}
