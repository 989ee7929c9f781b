package tickets

import (
	"bytes"
	"crypto/rand"
	"crypto/tls"
	"slices"
	"sync/atomic"
	"time"

	"github.com/flotilla-ha/flotilla/internal/notify"
	"github.com/flotilla-ha/flotilla/internal/state"
)

const (
	// Rotation is the period between rotations, unless TLS.TicketRotation sets another.
	Rotation = 12 * time.Hour

	// MinRotation is the shortest period.
	MinRotation = time.Second

	clockShare = 12 // a clock that may be wrong rotates at most so many times in a period
)

// Sealer seals and opens the session tickets of a node. Its methods are safe for concurrent use,
// except Follow.
type Sealer struct {
	period  time.Duration
	leased  func() bool
	using   atomic.Pointer[keySet] // replaced by Follow
	changed notify.Signal          // notified after using was replaced
	dud     *tls.Config            // its key opens nothing
}

// keySet is what a node does with one state.TicketKeys.
type keySet struct {
	keys  *state.TicketKeys // nil: there are none
	since time.Time         // when this process got them
	box   *tls.Config       // whose keys seal and open
}

// New returns a Sealer that does not have the cluster's keys yet. period is the time between
// rotations of the keys. leased reports whether the node is sure to know the cluster's newest keys.
// Any goroutine may call leased.
func New(period time.Duration, leased func() bool) *Sealer {
	s := &Sealer{period: period, leased: leased, dud: newBox(NewKey())}
	s.Follow(nil)
	return s
}

// NewKey returns a random key of state.TicketKeySize bytes.
func NewKey() []byte {
	key := make([]byte, state.TicketKeySize)
	rand.Read(key) // never fails
	return key
}

// Follow makes the Sealer use the keys that the state has. k may be nil. Only one goroutine at a
// time may call Follow.
func (s *Sealer) Follow(k *state.TicketKeys) {
	if now := s.using.Load(); now != nil && now.keys.MadeAt() == k.MadeAt() {
		return
	}
	var keys [][]byte
	if k == nil || k.Current == nil {
		keys = append(keys, NewKey()) // this node's alone, until the cluster has one
	}
	if k != nil {
		if k.Current != nil {
			keys = append(keys, k.Current)
		}
		keys = append(append(keys, k.Next), k.Previous...)
	}
	s.using.Store(&keySet{keys: k, since: time.Now(), box: newBox(keys...)})
	s.changed.Notify()
}

// Changed returns a signal that is notified when the Sealer uses other keys.
func (s *Sealer) Changed() *notify.Signal { return &s.changed }

// Current returns the cluster's keys. It returns nil if none of them is current.
func (s *Sealer) Current() *state.TicketKeys {
	k := s.using.Load().keys
	if k == nil || k.Current == nil {
		return nil
	}
	return k
}

// Due reports whether the current key of k has been in use for a period. It goes by the time for
// which this process has had the key. It also goes by the wall clock, unless clockWrong says that
// the clock is known to be wrong.
func (s *Sealer) Due(k *state.TicketKeys, clockWrong bool) bool {
	seen := s.using.Load()
	if seen.keys.MadeAt() != k.Index {
		return false
	}
	here, clock := time.Since(seen.since), time.Since(time.Unix(0, k.Time))
	return here >= s.period || !clockWrong && clock >= s.period && here >= s.period/clockShare
}

// Bind makes cfg, and clones of it, use the cluster's tickets. A ticket is good for the server name
// that it was given for, under the same demands on the client, and for nothing else: what one
// configuration has verified about a client means nothing to another. Names for which provisional
// returns true get worthless tickets, since their client would not see the certificate that
// replaces the self-signed one. (tls.Config.SetSessionTicketKeys does less, and not for clones,
// which http.Server.ServeTLS makes.)
func (s *Sealer) Bind(cfg *tls.Config, provisional func(name string) bool) {
	demands := new(demandsCache)
	cfg.WrapSession = func(cs tls.ConnectionState, ss *tls.SessionState) ([]byte, error) {
		box := s.using.Load().box
		if provisional(cs.ServerName) {
			box = s.dud
		}
		ss.Extra = append(ss.Extra, demands.binding(cfg, cs.ServerName))
		return box.EncryptTicket(cs, ss)
	}
	cfg.UnwrapSession = func(ticket []byte, cs tls.ConnectionState) (*tls.SessionState, error) {
		if !s.leased() {
			// the cluster may have dropped all tickets, and only this node would still open them
			return nil, nil
		}
		ss, err := s.using.Load().box.DecryptTicket(ticket, cs)
		if err != nil || ss == nil {
			return nil, nil // a full handshake; an error would end the connection
		}
		want := demands.binding(cfg, cs.ServerName)
		if !slices.ContainsFunc(ss.Extra, func(x []byte) bool { return bytes.Equal(x, want) }) {
			return nil, nil
		}
		return ss, nil
	}
}

// newBox returns a configuration that seals with the first key and opens with each of them. It is
// used for nothing else.
func newBox(keys ...[]byte) *tls.Config {
	box := new(tls.Config)
	raw := make([][state.TicketKeySize]byte, len(keys))
	for i, k := range keys {
		copy(raw[i][:], k)
	}
	box.SetSessionTicketKeys(raw)
	return box
}
