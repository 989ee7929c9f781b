package flotilla

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/flotilla-ha/flotilla/internal/codec"
)

// How a client resumes its session with another node than the one that it began with (RFC 8446, 2.2; RFC 5077). The state holds the keys of
// session tickets: next, current and two previous ones. Tickets are sealed with the current key and opened with any. The leader rotates
// them: next becomes current, and there is a new next, but not before every node has the one that becomes current. So no node ever
// meets a ticket whose key it lacks; nor does one that slept through two rotations give out tickets that others cannot open. A
// key is used for one period and accepted for three.

const (
	ticketRotation   = 12 * time.Hour // the period, unless TLS.TicketRotation says otherwise
	minTicketPeriod  = time.Second
	previousTickets  = 2  // keys that are accepted after they were current
	ticketClockShare = 12 // a clock that may be wrong rotates at most so many times in a period
	ticketKeySize    = 32
)

// ticketKeys are the keys of session tickets. It is immutable.
type ticketKeys struct {
	index    uint64 // of the entry that made them
	time     int64  // Unix nanoseconds of the proposer's clock
	next     []byte
	current  []byte   // nil: next has not been current yet
	previous [][]byte // the newest first
}

// rotateTickets lets the next key be current and takes another as next, if the keys are those that the command is about. With flag it
// drops all that there are.
func (s *state) rotateTickets(index uint64, c *command, fx *effects) code {
	old := s.tickets
	if !c.flag && old.madeAt() != c.cond {
		return codeChanged
	}
	next := &ticketKeys{index: index, time: c.time, next: c.value}
	if !c.flag && old != nil {
		next.current = old.next
		if old.current != nil {
			next.previous = append([][]byte{old.current}, old.previous[:min(len(old.previous), previousTickets-1)]...)
		}
	}
	s.tickets = next
	fx.ticket(c.flag)
	return codeOK
}

// madeAt returns the index of the keys, 0 if there are none.
func (k *ticketKeys) madeAt() uint64 {
	if k == nil {
		return 0
	}
	return k.index
}

func (fx *effects) ticket(dropped bool) {
	if fx != nil {
		fx.tickets, fx.dropped = true, fx.dropped || dropped
	}
}

func (k *ticketKeys) encode(e *codec.Encoder) {
	e.Uint(k.index)
	e.Int(k.time)
	e.Bytes(k.next)
	e.Bytes(k.current)
	e.Uint(uint64(len(k.previous)))
	for _, p := range k.previous {
		e.Bytes(p)
	}
}

func decodeTicketKeys(d *codec.Decoder) (*ticketKeys, error) {
	k := &ticketKeys{index: d.Uint(), time: d.Int(), next: d.Bytes(), current: d.Bytes()}
	if len(k.current) == 0 {
		k.current = nil
	}
	for range d.Count() {
		k.previous = append(k.previous, d.Bytes())
	}
	if err := d.End(); err != nil {
		return nil, err
	}
	for _, key := range append([][]byte{k.next}, k.previous...) {
		if len(key) != ticketKeySize {
			return nil, codec.ErrMalformed
		}
	}
	if k.current != nil && len(k.current) != ticketKeySize {
		return nil, codec.ErrMalformed
	}
	return k, nil
}

// tickets seals and opens the session tickets of a node.
type tickets struct {
	period  time.Duration
	leased  func() bool               // whether the keys are known to be those of the cluster
	using   atomic.Pointer[ticketSet] // replaced by follow
	changed signal                    // using is another one
	dud     *tls.Config               // its keys open nothing
}

// ticketSet is what a node does with one ticketKeys.
type ticketSet struct {
	keys  *ticketKeys // nil: there are none
	since time.Time   // when this process had them
	box   *tls.Config // whose keys seal and open
}

func newTickets(period time.Duration, leased func() bool) *tickets {
	t := &tickets{period: period, leased: leased, dud: ticketBox(newTicketKey())}
	t.follow(nil)
	return t
}

// follow takes the keys that the state has. It is called by one goroutine at a time.
func (t *tickets) follow(k *ticketKeys) {
	if now := t.using.Load(); now != nil && now.keys.madeAt() == k.madeAt() {
		return
	}
	var keys [][]byte
	if k == nil || k.current == nil {
		keys = append(keys, newTicketKey()) // which is this node's alone, until the cluster has one
	}
	if k != nil {
		if k.current != nil {
			keys = append(keys, k.current)
		}
		keys = append(append(keys, k.next), k.previous...)
	}
	t.using.Store(&ticketSet{keys: k, since: time.Now(), box: ticketBox(keys...)})
	t.changed.poke()
}

// ticketBox returns a configuration that seals with the first key and opens with each of them, and does nothing else.
func ticketBox(keys ...[]byte) *tls.Config {
	box := new(tls.Config)
	raw := make([][ticketKeySize]byte, len(keys))
	for i, k := range keys {
		copy(raw[i][:], k)
	}
	box.SetSessionTicketKeys(raw)
	return box
}

func newTicketKey() []byte {
	key := make([]byte, ticketKeySize)
	rand.Read(key) // never fails
	return key
}

// bind has cfg, and clones of it, use the cluster's tickets. A ticket is good for the server name that it was given for, under the same
// demands on the client, and for nothing else: what one configuration has found out about a client is not another's to
// believe. Names for which provisional is true get tickets that are worthless, for the client would go on seeing their
// self-signed certificate. A node without a lease opens no ticket. (tls.Config.SetSessionTicketKeys would do less, and not for clones, as http.Server.ServeTLS makes one.)
func (t *tickets) bind(cfg *tls.Config, provisional func(name string) bool) {
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

// due reports whether the current key has been in use for a period: by this node's watch, or by the clock, which may be wrong, and is
// not asked if it is known to be.
func (t *tickets) due(k *ticketKeys, clockWrong bool) bool {
	seen := t.using.Load()
	if seen.keys.madeAt() != k.index {
		return false
	}
	watch, clock := time.Since(seen.since), time.Since(time.Unix(0, k.time))
	return watch >= t.period || !clockWrong && clock >= t.period && watch >= t.period/ticketClockShare
}

// keepTickets makes and rotates the keys while this node leads.
func (n *Node) keepTickets(l *leadership) {
	for l.ctx.Err() == nil {
		changed, wait := n.tickets.changed.wait(), min(time.Minute, n.tickets.period/4)
		k := n.fsm.state().tickets
		if k == nil || k.current == nil || n.tickets.due(k, n.clocks.check(clockStops) != nil) {
			err := n.nextTickets(l, k)
			if err == nil {
				continue
			}
			if l.ctx.Err() == nil {
				n.log.Warn("the keys of session tickets were not rotated; will try again", "err", err)
			}
			wait = time.Second
		}
		select {
		case <-changed:
		case <-time.After(wait):
		case <-l.ctx.Done():
		}
	}
}

// nextTickets rotates the keys once every session has them.
func (n *Node) nextTickets(l *leadership, k *ticketKeys) error {
	if k != nil {
		if err := l.everyone(l.ctx, n, k.index); err != nil {
			return err
		}
	}
	a, err := n.writes.do(l.ctx, command{op: opTickets, cond: k.madeAt(), value: newTicketKey()})
	if err == nil && a.code != codeChanged {
		err = codeError(a.code)
	}
	return err
}

// DropTickets makes every session ticket that the cluster has given out worthless, at once: for when somebody may know the keys of tickets, or
// clients must not go on with what they have seen before. Each client makes one full handshake. A node that is cut off cannot hear of it, so no node
// opens tickets without a lease; those that it gives out meanwhile may be worthless. The cluster does it by itself when a
// certificate's key is marked as compromised, as certmagic does when the authority has revoked the certificate for that reason, and again when there
// is another key, for until then clients have seen the old certificate. It needs a leader.
func (n *Node) DropTickets(ctx context.Context) error {
	_, err := n.writes.do(ctx, command{op: opTickets, flag: true, value: newTicketKey()})
	return edge("dropping session tickets", err)
}

// TicketStatus tells about the keys of session tickets that the cluster shares.
type TicketStatus struct {
	Key        string    // names the current key, and is not part of it; empty: there is none yet, and no other node opens this one's tickets
	Since      time.Time // when it became current, by the clock of the node that led then
	AgeSeconds int64     // since then, by this node's clock
	Previous   int       // older keys whose tickets are still accepted
}

func (t *tickets) status() TicketStatus {
	k := t.using.Load().keys
	if k == nil || k.current == nil {
		return TicketStatus{}
	}
	sum := sha256.Sum256(k.current)
	since := time.Unix(0, k.time)
	return TicketStatus{Key: hex.EncodeToString(sum[:4]), Since: since, AgeSeconds: max(0, int64(time.Since(since).Seconds())), Previous: len(k.previous)}
}
