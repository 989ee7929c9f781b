// Package wire is the one TCP port of a node.
//
// Before any byte of a peer is believed both sides prove with TLS 1.3 that they have the cluster's secret, and which node they
// are: the certificate authority is derived from the secret, so every node signs its own certificate and none is distributed.
// ALPN then says what a connection is for: raft, calls between nodes, which are HTTP/2 requests, or notes, small messages one way
// that may be lost.
//
//	TCP ─ gate (caps, deadline) ─ TLS 1.3, node ID ─ accept byte ┬ raft   one raft.NetworkTransport per peer ─ checks ─ raft
//	                                                            ├ calls  net/http ─ Config.Handler
//	                                                            └ notes  frames, one connection per peer ─ Config.Noted
//
// Whoever has the secret can be any node: the node ID in a certificate guards against mistakes, not against a malicious member.
//
// The raft half is hashicorp/raft's own NetworkTransport with the faults of v1.7.3 kept away from it: see Transport.
package wire

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/flotilla-ha/flotilla/internal/history"
	"github.com/flotilla-ha/flotilla/internal/seal"
)

// The protocols of the port, as ALPN names them.
const (
	alpnRaft = "flotilla-raft/1"
	alpnCall = "flotilla-call/1"
	alpnNote = "flotilla-note/1"
)

const (
	dialTimeout  = 500 * time.Millisecond // of a TCP connection
	greetTimeout = 3 * time.Second        // of TLS, and of the accept byte
	rpcTimeout   = 2 * time.Second        // Config.Timeout when zero
	maxConns     = 64                     // authenticated connections from one peer
)

// Config describes a Port. The callbacks are called from many goroutines at once, must not block for long, and must not call
// Port.Close.
type Config struct {
	// ID is this node: 32 lower-case hexadecimal digits. It is also its raft.ServerID and its raft.ServerAddress, so that a new
	// IP address never touches raft's configuration.
	ID string

	// Process tells this process from others of the node, in the certificate that peers see. Empty:
	// it does not.
	Process string

	// Fresh is asked for each connection and each raft RPC of a process of a node, that of a peer that
	// was dialled among them, except for connections from peers for calls: an error says that another
	// process has taken its place. Nil: none has.
	Fresh func(id, process string) error

	// Sum returns what stands for this node's log up to the entry of that index and term, and whether it
	// is known. It goes with what is replicated to peers. Nil: nothing does.
	Sum func(index, term uint64) (uint64, bool)

	// Compare is asked for each RPC by which a leader of that term replicates its log: an error says that
	// this node's log contradicts it. Raft does not see that RPC then. Nil: nothing is compared.
	Compare func(id string, term uint64, c history.Claim) error

	// MayLead is asked for each request for a vote, of a node whose log ends with the entry last: an error
	// refuses it. Nil: raft decides.
	MayLead func(last uint64) error

	// Secrets are the cluster's secrets, at least one. The first is shown to a peer that does not say which it wants; all are
	// accepted, and tried in their order on dialling.
	Secrets []seal.Secret

	// Listener accepts the connections of peers. The Port owns it.
	Listener net.Listener

	// Dial makes connections to peers. Nil: a net.Dialer.
	Dial func(ctx context.Context, network, addr string) (net.Conn, error)

	// Resolve is the address book: the address of a node. Nil: no node is known.
	Resolve func(id string) (addr string, ok bool)

	// Admit is asked for each raft connection and each raft RPC of an authenticated peer. An error refuses it, and its text is
	// sent to the peer. It is also asked, once a second, whether to go on holding AppendEntries for a peer that is down. Nil:
	// everybody is admitted.
	Admit func(id string) error

	// Handler answers node calls. Peer tells who calls. Nil: every call is answered with 404.
	Handler http.Handler

	// Will is told by the bearer of a session's will that its process is dead. Nil: wills are refused.
	Will func(ctx context.Context, node string, session uint64) error

	// Noted is told of a note from an authenticated peer. The note is valid during the call only. For one peer there is one call at
	// a time, on the goroutine of its connection, so it must not block. Nil: notes are refused.
	Noted func(id string, note []byte)

	// Term is this node's raft term. Terms of others that exceed it by more than 2^20 are refused. It is asked from the first
	// call of Transport on, so possibly before raft.NewRaft has returned. Nil: terms are not checked.
	Term func() uint64

	// Stalled reports whether this node's disk hangs; while it does, no AppendEntries and no snapshot is sent. Nil: never.
	Stalled func() bool

	// Gone is told that the process of a peer is dead: all its raft connections to us have ended and its port refuses. Nil: nobody.
	Gone func(id string)

	// Matched is told that Transport.Match of a peer grew. Nil: nobody.
	Matched func(id string)

	// Applied waits, for a bounded time, until this node has applied index. A peer that has told of a commit by Transport.Tell
	// is answered after that. Nil: at once.
	Applied func(index uint64) error

	// Timeout bounds a raft RPC and the writing of notes, and is the patience of the pings on connections for calls. On one for notes
	// it is a quarter of that. 0: 2 s.
	Timeout time.Duration

	// Company is how long a heartbeat may wait for a note to the same peer, so that both are sent and taken in one moment: each that a
	// machine is woken for by itself costs it as much as all the rest. 0: it does not wait.
	Company time.Duration

	// Logger receives what happens. Nil: nothing is logged.
	Logger *slog.Logger
}

// Port is one open TCP port of a node and all connections of the node to its peers. Its methods may be called from several
// goroutines at once.
type Port struct {
	cfg   Config
	ids   []*identity // one per secret, in order
	peers *peers
	gate  *gate
	calls *calls
	notes *notes
	said  *limiter // sentences about wrong secrets, by peer address
	done  chan struct{}
	wg    sync.WaitGroup // every goroutine of the Port; Add only under mu while not closed

	mu        sync.Mutex
	closed    bool
	conns     map[*conn]struct{} // every connection, from accept or dial to close
	hints     map[string]int     // address: which secret its node had last
	transport *Transport         // the current one; nil before the first and after its Close
}

// Open begins to accept connections on cfg.Listener. When it returns an error the listener is still the caller's.
func Open(cfg Config) (*Port, error) {
	if !validID(cfg.ID) {
		return nil, fmt.Errorf("node ID %q is not 32 lower-case hexadecimal digits", cfg.ID)
	}
	if len(cfg.Secrets) == 0 {
		return nil, errors.New("no cluster secret")
	}
	if cfg.Listener == nil {
		return nil, errors.New("no listener")
	}
	if cfg.Dial == nil {
		cfg.Dial = new(net.Dialer).DialContext
	}
	if cfg.Resolve == nil {
		cfg.Resolve = func(string) (string, bool) { return "", false }
	}
	if cfg.Admit == nil {
		cfg.Admit = func(string) error { return nil }
	}
	if cfg.Handler == nil {
		cfg.Handler = http.NotFoundHandler()
	}
	if cfg.Applied == nil {
		cfg.Applied = func(uint64) error { return nil }
	}
	if cfg.Stalled == nil {
		cfg.Stalled = func() bool { return false }
	}
	if cfg.Timeout <= 0 {
		cfg.Timeout = rpcTimeout
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	p := &Port{
		cfg:   cfg,
		peers: newPeers(),
		gate:  newGate(),
		said:  newLimiter(time.Minute),
		done:  make(chan struct{}),
		conns: make(map[*conn]struct{}),
		hints: make(map[string]int),
	}
	for _, s := range cfg.Secrets {
		id, err := newIdentity(s, cfg.ID, cfg.Process)
		if err != nil {
			return nil, fmt.Errorf("making a certificate: %w", err)
		}
		p.ids = append(p.ids, id)
	}
	p.calls = newCalls(p)
	p.notes = newNotes(p)
	p.spawn(p.accept)
	p.spawn(p.calls.serve)
	return p, nil
}

// Addr returns the address of the listener.
func (p *Port) Addr() net.Addr { return p.cfg.Listener.Addr() }

// Transport returns the transport for this node's raft. Until it is first called, and after the Transport was closed, raft
// connections of peers are refused; after Close of a Transport (which raft.Shutdown does) Transport makes a new one. After
// Close of the Port it returns one that is closed.
func (p *Port) Transport() *Transport {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.transport == nil {
		p.transport = newTransport(p)
		if p.closed {
			p.transport.Stop()
		}
	}
	return p.transport
}

// Close closes the listener and every connection, ends the Transport and waits for the Port's goroutines, node calls being
// answered among them. That takes as long as Config.Handler does once its context has ended, and a second at most when a peer
// has just broken the rules of HTTP/2. It may be called again.
func (p *Port) Close() error {
	p.mu.Lock()
	if p.closed {
		p.mu.Unlock()
		p.wg.Wait()
		return nil
	}
	p.closed = true
	t := p.transport
	close(p.done)
	p.mu.Unlock()

	err := p.cfg.Listener.Close()
	if t != nil {
		t.Close()
	}
	p.calls.close()
	for _, c := range p.connections() {
		c.Close()
	}
	p.wg.Wait()
	return err
}

// spawn runs f in a goroutine that Close waits for, unless the Port is closed.
func (p *Port) spawn(f func()) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return false
	}
	p.wg.Go(f)
	return true
}

// enter has Close wait for wg.Done, unless the Port is closed.
func (p *Port) enter() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.closed {
		p.wg.Add(1)
	}
	return !p.closed
}

// isClosed reports whether Close was called.
func (p *Port) isClosed() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// connections returns all open connections.
func (p *Port) connections() []*conn {
	p.mu.Lock()
	defer p.mu.Unlock()
	all := make([]*conn, 0, len(p.conns))
	for c := range p.conns {
		all = append(all, c)
	}
	return all
}

// fresh reports why a process of a node is not to be talked to.
func (p *Port) fresh(id, process string) error {
	if p.cfg.Fresh == nil || process == "" {
		return nil
	}
	if err := p.cfg.Fresh(id, process); err != nil {
		return fmt.Errorf("%w: %w", errOlder, err)
	}
	return nil
}

// Recheck closes all connections, but those for calls, of processes that Config.Fresh refuses by now.
func (p *Port) Recheck() {
	for _, c := range p.connections() {
		if c.stale() {
			c.Close()
		}
	}
}

// current returns the Transport, or nil if there is none.
func (p *Port) current() *Transport {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.transport
}

// forget makes t no longer the current Transport.
func (p *Port) forget(t *Transport) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.transport == t && !p.closed {
		p.transport = nil
	}
}

// validID reports whether id has the form of a node ID.
func validID(id string) bool {
	if len(id) != 32 {
		return false
	}
	for _, c := range []byte(id) {
		if (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}

// limiter lets one sentence per key pass in each interval.
type limiter struct {
	every time.Duration
	mu    sync.Mutex
	last  map[string]time.Time
}

func newLimiter(every time.Duration) *limiter {
	return &limiter{every: every, last: make(map[string]time.Time)}
}

// pass reports whether it is key's turn. Of more than 1024 keys at once the oldest turns are forgotten together.
func (l *limiter) pass(key string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	if last, ok := l.last[key]; ok && now.Sub(last) < l.every {
		return false
	}
	if len(l.last) >= 1024 {
		clear(l.last)
	}
	l.last[key] = now
	return true
}
