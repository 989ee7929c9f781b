package certs

import (
	"crypto/tls"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/flotilla-ha/flotilla/internal/certs/quarantine"
)

// managed is what is known about one declared name. The mutex of its table guards it.
type managed struct {
	name   string
	err    error         // of the last try
	damage error         // what is wrong with the records in the storage, until there is a certificate
	next   time.Time     // when the next try is, if err is not nil
	logged string        // the error that was logged last
	stale  error         // why there is no newer certificate than the one that is served, or nil
	known  chan struct{} // closed when handshakes need not wait any longer
	once   sync.Once     // closes known

	had   bool             // the cluster has, or has had, a certificate
	none  bool             // it has never had one, as far as this node knows, and its state is current
	own   *tls.Certificate // the self-signed one; nil: no client has asked for it
	given int              // handshakes under way that have the self-signed one
	shown bool             // some handshake has had it
}

// nameTable is what is known about names. Its methods are safe for concurrent use and do not block.
type nameTable struct {
	changed func() // is called when status may return something else

	mu    sync.Mutex
	names map[string]*managed // the declared ones; never shrinks
	sites map[string][]string // the names of each directory in the storage, those on demand included
	given int                 // handshakes under way that have a self-signed certificate
}

func newNameTable(changed func()) *nameTable {
	return &nameTable{changed: changed, names: make(map[string]*managed), sites: make(map[string][]string)}
}

// declare adds a declared name, and reports whether it is new.
func (t *nameTable) declare(name, site string) bool {
	defer t.changed()
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.names[name] != nil {
		return false
	}
	t.names[name] = &managed{name: name, err: errors.New("not tried yet"), known: make(chan struct{})}
	t.addSite(site, name) // it may have been on demand
	return true
}

// update calls f with what is known of a declared name, and does nothing for others.
func (t *nameTable) update(name string, f func(*managed)) {
	defer t.changed()
	t.mu.Lock()
	defer t.mu.Unlock()
	if m := t.names[name]; m != nil {
		f(m)
	}
}

// find returns what is known of a name that a client has asked for, nil if it is not managed. t.mu
// is held.
func (t *nameTable) find(name string) *managed {
	if m := t.names[name]; m != nil {
		return m
	}
	if _, parent, ok := strings.Cut(name, "."); ok {
		return t.names["*."+parent]
	}
	return nil
}

// manages reports whether name, or a wildcard for it, is declared.
func (t *nameTable) manages(name string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.find(name) != nil
}

// isDeclared reports whether exactly this name is declared.
func (t *nameTable) isDeclared(name string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.names[name] != nil
}

// awaits returns what handshakes for name wait for, nil if it is not managed, and whether the
// cluster has never had a certificate for it.
func (t *nameTable) awaits(name string) (known <-chan struct{}, none bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	m := t.find(name)
	if m == nil {
		return nil, false
	}
	return m.known, m.none
}

// tried records how a try for name ended. loaded says that a certificate is in memory: handshakes
// do not wait for a better one.
func (t *nameTable) tried(name string, err error, loaded bool) {
	t.update(name, func(m *managed) {
		if m.err = err; err == nil {
			m.stale, m.damage, m.next, m.logged = nil, nil, time.Time{}, ""
		} else if m.damage != nil {
			m.err = fmt.Errorf("%w; %w", m.damage, err)
		}
		if err == nil || loaded {
			m.once.Do(func() { close(m.known) })
		}
	})
}

// notRenewed records why name has no newer certificate than the one that is served. It reports
// whether that is news.
func (t *nameTable) notRenewed(name string, err error) (news bool) {
	t.update(name, func(m *managed) {
		news = m.stale == nil
		m.stale = err
	})
	return news
}

// damaged records that what is stored for name cannot be read, until there is a certificate.
func (t *nameTable) damaged(name string, bad error) {
	t.update(name, func(m *managed) {
		m.damage = fmt.Errorf("the certificate in the storage cannot be read, and is ordered anew (a copy is below %s): %w",
			quarantine.Place, bad)
		if m.err != nil {
			m.err = m.damage
		}
	})
}

// scheduled records when the next try for name is.
func (t *nameTable) scheduled(name string, at time.Time) {
	t.update(name, func(m *managed) { m.next = at.Round(time.Second) })
}

// logs records that text is logged about name, and reports whether the line before had it already.
func (t *nameTable) logs(name, text string) (again bool) {
	t.update(name, func(m *managed) {
		again = strings.Contains(m.logged, text)
		m.logged = text
	})
	return again
}

// absent records that the cluster has no certificate for name. The caller must have asked a storage
// that is current.
func (t *nameTable) absent(name string) {
	t.update(name, func(m *managed) {
		if !m.had {
			m.none = true
			m.once.Do(func() { close(m.known) })
		}
	})
}

// found records that the cluster has a certificate for name, even if it is of no use. It reports
// whether a self-signed one was served until now.
func (t *nameTable) found(name string) (ended bool) {
	t.update(name, func(m *managed) {
		ended = m.none && m.shown
		m.had, m.none, m.own = true, false, nil
	})
	return ended
}

// isNone reports whether exactly this name is declared and has never had a certificate.
func (t *nameTable) isNone(name string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	m := t.names[name]
	return m != nil && m.none
}

// domains returns the declared names, in alphabetical order.
func (t *nameTable) domains() []string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.Sorted(maps.Keys(t.names))
}

// failures returns the last error of each name that has one.
func (t *nameTable) failures() map[string]error {
	t.mu.Lock()
	defer t.mu.Unlock()
	failed := make(map[string]error)
	for name, m := range t.names {
		if m.err != nil {
			failed[name] = m.err
		}
	}
	return failed
}

// addSite records that the certificate of name is in a directory of the storage. t.mu is held.
func (t *nameTable) addSite(site, name string) {
	if !slices.Contains(t.sites[site], name) {
		t.sites[site] = append(t.sites[site], name)
	}
}

// learn records that the certificate of a name on demand is in a directory of the storage.
func (t *nameTable) learn(site, name string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.addSite(site, name)
}

// drop forgets the directory of a name on demand.
func (t *nameTable) drop(site, name string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.sites[site] = slices.DeleteFunc(t.sites[site], func(s string) bool { return s == name })
	if len(t.sites[site]) == 0 {
		delete(t.sites, site)
	}
}

// at returns the names whose certificates are in a directory of the storage.
func (t *nameTable) at(site string) []string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.Clone(t.sites[site])
}

// directories returns the directories of all certificates.
func (t *nameTable) directories() []string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.Collect(maps.Keys(t.sites))
}
