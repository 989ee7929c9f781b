package frontend

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/flotilla-ha/flotilla/internal/notify"
	"github.com/flotilla-ha/flotilla/internal/state"
)

// How a client resumes its session with another node than the one that it began with (RFC 8446, 2.2; RFC 5077). The state holds the keys of
// session tickets: next, current and two previous ones. Tickets are sealed with the current key and opened with any. The leader rotates
// them: next becomes current, and there is a new next, but not before every node has the one that becomes current. So no node ever
// meets a ticket whose key it lacks; nor does one that slept through two rotations give out tickets that others cannot open. A
// key is used for one period and accepted for three.

const (
	TicketRotation   = 12 * time.Hour // the period, unless TLS.TicketRotation says otherwise
	MinTicketPeriod  = time.Second
	ticketClockShare = 12 // a clock that may be wrong rotates at most so many times in a period
)

// Tickets seals and opens the session tickets of a node.
type Tickets struct {
	Period  time.Duration
	leased  func() bool               // whether the keys are known to be those of the cluster
	using   atomic.Pointer[ticketSet] // replaced by follow
	Changed notify.Signal             // using is another one
	dud     *tls.Config               // its keys open nothing
}

// ticketSet is what a node does with one TicketKeys.
type ticketSet struct {
	keys  *state.TicketKeys // nil: there are none
	since time.Time         // when this process had them
	box   *tls.Config       // whose keys seal and open
}

func NewTickets(period time.Duration, leased func() bool) *Tickets {
	t := &Tickets{Period: period, leased: leased, dud: ticketBox(NewTicketKey())}
	t.Follow(nil)
	return t
}

// Follow takes the keys that the state has. It is called by one goroutine at a time.
func (t *Tickets) Follow(k *state.TicketKeys) {
	if now := t.using.Load(); now != nil && now.keys.MadeAt() == k.MadeAt() {
		return
	}
	var keys [][]byte
	if k == nil || k.Current == nil {
		keys = append(keys, NewTicketKey()) // which is this node's alone, until the cluster has one
	}
	if k != nil {
		if k.Current != nil {
			keys = append(keys, k.Current)
		}
		keys = append(append(keys, k.Next), k.Previous...)
	}
	t.using.Store(&ticketSet{keys: k, since: time.Now(), box: ticketBox(keys...)})
	t.Changed.Notify()
}

// ticketBox returns a configuration that seals with the first key and opens with each of them, and does nothing else.
func ticketBox(keys ...[]byte) *tls.Config {
	box := new(tls.Config)
	raw := make([][state.TicketKeySize]byte, len(keys))
	for i, k := range keys {
		copy(raw[i][:], k)
	}
	box.SetSessionTicketKeys(raw)
	return box
}

func NewTicketKey() []byte {
	key := make([]byte, state.TicketKeySize)
	rand.Read(key) // never fails
	return key
}

// Bind has cfg, and clones of it, use the cluster's tickets. A ticket is good for the server name that it was given for, under the same
// demands on the client, and for nothing else: what one configuration has found out about a client is not another's to
// believe. Names for which provisional is true get tickets that are worthless, for the client would go on seeing their
// self-signed certificate. A node without a lease opens no ticket. (tls.Config.SetSessionTicketKeys would do less, and not for clones, as http.Server.ServeTLS makes one.)
func (t *Tickets) Bind(cfg *tls.Config, provisional func(name string) bool) {
	demands := new(demandsCache)
	cfg.WrapSession = func(cs tls.ConnectionState, ss *tls.SessionState) ([]byte, error) {
		box := t.using.Load().box
		if provisional(cs.ServerName) {
			box = t.dud
		}
		ss.Extra = append(ss.Extra, demands.binding(cfg, cs.ServerName))
		return box.EncryptTicket(cs, ss)
	}
	cfg.UnwrapSession = func(ticket []byte, cs tls.ConnectionState) (*tls.SessionState, error) {
		if !t.leased() { // all tickets may have been dropped meanwhile, and this node would be the one that takes them
			return nil, nil
		}
		ss, err := t.using.Load().box.DecryptTicket(ticket, cs)
		if err != nil || ss == nil {
			return nil, nil // a full handshake: an error would end the connection
		}
		want := demands.binding(cfg, cs.ServerName)
		if !slices.ContainsFunc(ss.Extra, func(x []byte) bool { return bytes.Equal(x, want) }) {
			return nil, nil
		}
		return ss, nil
	}
}

// demandsCache remembers what a configuration demands of clients, since a pool may be large.
type demandsCache struct{ last atomic.Pointer[demands] }

// demands is a digest of them.
type demands struct {
	auth    tls.ClientAuthType
	cas     *x509.CertPool
	checked bool // by VerifyPeerCertificate, which is not called when a session is resumed
	sum     [sha256.Size]byte
}

// binding returns what a ticket for a server name under cfg has within.
func (c *demandsCache) binding(cfg *tls.Config, name string) []byte {
	d := c.last.Load()
	checked := cfg.VerifyPeerCertificate != nil
	if d == nil || d.auth != cfg.ClientAuth || d.cas != cfg.ClientCAs || d.checked != checked {
		d = &demands{auth: cfg.ClientAuth, cas: cfg.ClientCAs, checked: checked}
		h := sha256.New()
		fmt.Fprintf(h, "flotilla ticket 1\n%d %v\n", d.auth, d.checked)
		if d.cas != nil {
			//lint:ignore SA1019 the system's roots, which it leaves out, are not what client certificates are checked against
			subjects := d.cas.Subjects()
			slices.SortFunc(subjects, bytes.Compare)
			for _, s := range subjects {
				fmt.Fprintf(h, "%x\n", s)
			}
		}
		h.Sum(d.sum[:0])
		c.last.Store(d)
	}
	sum := sha256.Sum256(append(d.sum[:], strings.ToLower(name)...))
	return sum[:]
}

// Due reports whether the current key has been in use for a period: by this node's watch, or by the clock, which may be wrong, and is
// not asked if it is known to be.
func (t *Tickets) Due(k *state.TicketKeys, clockWrong bool) bool {
	seen := t.using.Load()
	if seen.keys.MadeAt() != k.Index {
		return false
	}
	watch, clock := time.Since(seen.since), time.Since(time.Unix(0, k.Time))
	return watch >= t.Period || !clockWrong && clock >= t.Period && watch >= t.Period/ticketClockShare
}

// Current returns the cluster's keys, nil if there is no current one.
func (t *Tickets) Current() *state.TicketKeys {
	k := t.using.Load().keys
	if k == nil || k.Current == nil {
		return nil
	}
	return k
}
