package peerconn

import (
	"sync"
	"time"
)

// Table is what connections show about the other nodes. Its methods may be called from several
// goroutines at once, and for any node ID.
type Table struct {
	mu    sync.Mutex
	peers map[string]*state
}

// state is what is known of one peer. Table.mu guards it.
type state struct {
	contact time.Time // when it last answered
	echo    time.Time // when it last answered a datagram

	// Since the last dial failed and until it is seen: closed when it is seen. Else nil.
	up      chan struct{}
	refused bool      // its port refused that dial
	err     error     // why that dial failed
	since   time.Time // the first failed dial since it was last seen

	inbound int // authenticated connections from it
}

// NewTable returns an empty table.
func NewTable() *Table { return &Table{peers: make(map[string]*state)} }

// get needs mu.
func (t *Table) get(id string) *state {
	p := t.peers[id]
	if p == nil {
		p = new(state)
		t.peers[id] = p
	}
	return p
}

// observe needs mu.
func (p *state) observe() {
	p.refused, p.err = false, nil
	if p.up != nil {
		close(p.up)
		p.up = nil
	}
}

// Observe records that the peer is reachable: something came from it, or a dial worked.
func (t *Table) Observe(id string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.get(id).observe()
}

// Answered records that the peer has answered a request just now.
func (t *Table) Answered(id string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	p := t.get(id)
	p.contact = time.Now()
	p.observe()
}

// DatagramAnswered records that the peer has just answered a recent datagram by one of its own. So
// the connections for datagrams work both ways.
func (t *Table) DatagramAnswered(id string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	p := t.get(id)
	p.contact = time.Now()
	p.echo = p.contact
	p.observe()
}

// DatagramContact returns when the peer last answered a datagram; zero if it never did.
func (t *Table) DatagramContact(id string) time.Time {
	t.mu.Lock()
	defer t.mu.Unlock()
	if p := t.peers[id]; p != nil {
		return p.echo
	}
	return time.Time{}
}

// Failed records that a dial to the peer failed, and why.
func (t *Table) Failed(id string, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	p := t.get(id)
	p.refused = PortRefuses(err)
	if p.up == nil {
		p.up = make(chan struct{})
	}
	if p.err == nil {
		p.since = time.Now()
	}
	p.err = err
}

// Up returns nil if the peer is thought to be reachable. Otherwise it returns a channel that is
// closed when the peer is seen.
func (t *Table) Up(id string) <-chan struct{} {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.get(id).up
}

// Contact returns when the peer last answered a request; zero if it never did.
func (t *Table) Contact(id string) time.Time {
	t.mu.Lock()
	defer t.mu.Unlock()
	if p := t.peers[id]; p != nil {
		return p.contact
	}
	return time.Time{}
}

// Refused reports whether the peer's port refused the last dial, so that its process is not there,
// and the peer has not been seen since.
func (t *Table) Refused(id string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	p := t.peers[id]
	return p != nil && p.refused
}

// BelievedDead is Refused, and no authenticated connection from the peer is open. It is false for a
// node that was never dialled. This is evidence and no proof: a firewall that resets everything
// looks the same, and so does a wrong address while the node says nothing.
func (t *Table) BelievedDead(id string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	p := t.peers[id]
	return p != nil && p.refused && p.inbound == 0
}

// LastError returns why the peer cannot be reached, and since when: the error of the last dial. It
// is nil if nobody dialled, if the dial worked, or if the peer was seen since.
func (t *Table) LastError(id string) (since time.Time, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if p := t.peers[id]; p != nil && p.err != nil {
		return p.since, p.err
	}
	return time.Time{}, nil
}

// enter counts an inbound connection, unless there are too many.
func (t *Table) enter(id string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	p := t.get(id)
	if p.inbound >= MaxPerPeer {
		return false
	}
	p.inbound++
	return true
}

// leave undoes enter.
func (t *Table) leave(id string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.get(id).inbound--
}
