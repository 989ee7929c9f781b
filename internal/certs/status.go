package certs

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/caddyserver/certmagic"

	"github.com/flotilla-ha/flotilla/internal/certs/backoff"
)

const maxListed = 10 // names in one line

// Status is what is known about the certificate of one name.
type Status struct {
	Domain   string    // the name
	Serial   string    // in hexadecimal; empty: no certificate is loaded
	Issuer   string    // its common name
	NotAfter time.Time // zero: no certificate is loaded
	Managed  bool      // it is loaded, and renewed when due
	// SelfSigned says that there has never been a certificate, and a self-signed one is served.
	SelfSigned bool
	OnDemand   bool      // it was not declared: a handshake asked for it
	Err        error     // why there is no certificate, or only an old one, or nil
	Next       time.Time // of the next try, if there was an error
	Failures   int       // orders of the cluster that failed since the last one that succeeded
}

// show takes over what is known of the certificate that a handshake gets: the first valid one, else
// the first.
func (s *Status) show(found []certmagic.Certificate) {
	leaf := found[max(0, slices.IndexFunc(found, func(x certmagic.Certificate) bool { return !x.Expired() }))].Leaf
	s.Serial, s.Issuer, s.NotAfter = leaf.SerialNumber.Text(16), leaf.Issuer.CommonName, leaf.NotAfter
}

// statuses returns what the table knows about each declared name, in alphabetical order.
func (t *nameTable) statuses() []Status {
	t.mu.Lock()
	all := make([]Status, 0, len(t.names))
	for name, m := range t.names {
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
	slices.SortFunc(all, func(a, b Status) int { return strings.Compare(a.Domain, b.Domain) })
	return all
}

// status returns what is known about each declared name, in alphabetical order.
func status(l *loader, pauses *backoff.Backoff) []Status {
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
	}
	return all
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
