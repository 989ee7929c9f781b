package peerconn

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/flotilla-ha/flotilla/internal/seal"
	"github.com/flotilla-ha/flotilla/internal/wire/peertls"
)

// errDropped says that the secret of a connection was dropped while it was made.
var errDropped = errors.New("the secret that it was made with is used no more")

// probePause is the longest pause between two attempts of Probe.
const probePause = 64 * time.Millisecond

// DialConfig describes a Dialer. All fields are needed.
type DialConfig struct {
	// Dial makes TCP connections.
	Dial func(ctx context.Context, network, addr string) (net.Conn, error)

	// Resolve returns the address of a node.
	Resolve func(id string) (addr string, ok bool)

	// Fresh says why an incarnation of a node is not talked to.
	Fresh func(id, incarnation string) error

	Identities func() peertls.Identities // as they are now; tried in order
	Life       *Life                     // all dials end with it
	Conns      *Set                      // tracks the connections
	Peers      *Table                    // learns whether a dial worked
	Logger     *slog.Logger              // gets a line about a wrong secret
	Throttle   *Throttle                 // bounds the lines about one address
}

// Dialer makes connections to peers. All its dials end with the Life.
type Dialer struct {
	cfg DialConfig

	mu    sync.Mutex
	hints map[string]seal.KeyID // address: which of our secrets its node had last, if not our first
}

// NewDialer returns a dialer.
func NewDialer(cfg DialConfig) *Dialer { return &Dialer{cfg: cfg, hints: make(map[string]seal.KeyID)} }

// Node connects to the node id, and records in the peer table whether that worked. The error is a
// [DialError], or ErrClosed.
func (d *Dialer) Node(ctx context.Context, id string, protocol Protocol) (*Conn, error) {
	ctx, release, err := d.cfg.Life.Context(ctx)
	if err != nil {
		return nil, err
	}
	defer release()
	c, err := d.node(ctx, id, protocol)
	if err != nil {
		switch {
		case protocol == Datagrams && Unwilling(err):
			// The peer is there, and raft must not wait for it.
		case protocol == Raft || ctx.Err() == nil:
			// Otherwise the dial was given up early, which proves nothing about the peer.
			d.cfg.Peers.Failed(id, err)
		}
		return nil, &DialError{id, err}
	}
	if protocol != RPC {
		d.cfg.Peers.Observe(id)
	}
	return c, nil
}

func (d *Dialer) node(ctx context.Context, id string, protocol Protocol) (*Conn, error) {
	addr, ok := d.cfg.Resolve(id)
	if !ok {
		return nil, errors.New("its address is not known")
	}
	return d.dial(ctx, addr, protocol, id)
}

// Addr connects to whatever node is at addr.
func (d *Dialer) Addr(ctx context.Context, addr string, protocol Protocol) (*Conn, error) {
	ctx, release, err := d.cfg.Life.Context(ctx)
	if err != nil {
		return nil, err
	}
	defer release()
	return d.dial(ctx, addr, protocol, "")
}

// dial connects to the node want at addr, or to any node there if want is empty. It uses the first
// of our secrets that the peer has, and begins with the one that worked the last time.
func (d *Dialer) dial(ctx context.Context, addr string, protocol Protocol, want string) (*Conn, error) {
	var wrong *peertls.WrongSecretError
	all := d.cfg.Identities()
	for _, i := range d.inOrder(addr, all) {
		c, err := d.dialWith(ctx, addr, protocol, want, i)
		if err == nil {
			d.setHint(addr, i, all)
			return c, nil
		}
		if !errors.As(err, &wrong) {
			return nil, err
		}
	}
	if d.cfg.Throttle.Pass("out " + addr) {
		d.cfg.Logger.Warn(wrong.Error())
	}
	return nil, wrong
}

// dialWith is dial with one of our secrets.
func (d *Dialer) dialWith(
	ctx context.Context,
	addr string,
	protocol Protocol,
	want string,
	as *peertls.Identity,
) (_ *Conn, err error) {
	dctx, cancel := context.WithTimeout(ctx, DialTimeout)
	raw, err := d.cfg.Dial(dctx, "tcp", addr)
	cancel()
	if err != nil {
		return nil, err
	}
	c := d.cfg.Conns.Track(raw)
	if c == nil {
		raw.Close()
		return nil, ErrClosed
	}
	defer func() {
		if err != nil {
			c.Close()
		}
	}()
	stop := context.AfterFunc(ctx, func() { raw.Close() })
	defer stop()
	raw.SetDeadline(time.Now().Add(HandshakeTimeout))
	config := as.Client(addr, string(protocol), want)
	// All datagrams that wait go in one record. For the other protocols the default is right.
	config.DynamicRecordSizingDisabled = protocol == Datagrams
	tc := tls.Client(raw, config)
	if err := tc.Handshake(); err != nil {
		if wrong := new(peertls.WrongNodeError); errors.As(err, &wrong) {
			return nil, wrong
		}
		return nil, fmt.Errorf("handshake with %s: %w", addr, Cause(ctx, err))
	}
	state := tc.ConnectionState()
	if state.NegotiatedProtocol != string(protocol) {
		return nil, fmt.Errorf("handshake with %s: it does not speak %s", addr, protocol)
	}
	peer, err := peertls.PeerOf(state.PeerCertificates[0])
	if err != nil {
		return nil, err
	}
	c.identify(peer, protocol, false, as.KeyID())
	if d.cfg.Identities().Find(as.KeyID()) == nil {
		return nil, errDropped
	}
	if want != "" {
		if err := d.cfg.Fresh(peer.ID, peer.Incarnation); err != nil {
			return nil, err
		}
	}
	answer, err := peertls.ReadAnswer(tc)
	if err == nil {
		err = answer.Err()
	}
	if err != nil {
		return nil, fmt.Errorf("handshake with %s: %w", addr, Cause(ctx, err))
	}
	if !stop() {
		return nil, context.Cause(ctx)
	}
	c.Conn = tc
	return c, raw.SetDeadline(time.Time{})
}

// Cause returns why ctx has ended, or err if it has not.
func Cause(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// inOrder returns our identities in the order in which to try them at addr. The one that worked
// there the last time comes first.
func (d *Dialer) inOrder(addr string, all peertls.Identities) peertls.Identities {
	d.mu.Lock()
	last := all.Find(d.hints[addr])
	d.mu.Unlock()
	if last == nil {
		return all
	}
	return append(peertls.Identities{last}, slices.DeleteFunc(slices.Clone(all), func(i *peertls.Identity) bool { return i == last })...)
}

func (d *Dialer) setHint(addr string, worked *peertls.Identity, all peertls.Identities) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if worked == all[0] {
		delete(d.hints, addr)
		return
	}
	if len(d.hints) >= 1024 {
		clear(d.hints)
	}
	d.hints[addr] = worked.KeyID()
}

// Probe reports whether the process of a peer is dead, after all its connections for raft have
// ended. A peer may close connections that it does not need; only a port that refuses is a proof.
// A connection is no proof of the contrary yet. While a process dies its listener may outlive its
// other connections for a moment. Then the new connection ends as well, or the kernel resets it
// before it is there.
func (d *Dialer) Probe(id string) (dead bool) {
	ctx, release, err := d.cfg.Life.Context(context.Background())
	if err != nil {
		return false
	}
	defer release()
	for pause := time.Millisecond; pause <= probePause; pause *= 2 {
		addr, ok := d.cfg.Resolve(id)
		if !ok {
			return false
		}
		ended, err := d.touch(ctx, addr)
		if !d.cfg.Life.Ended() && PortRefuses(err) {
			d.cfg.Peers.Failed(id, err)
			return true
		}
		if !ended {
			return false
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return false
		}
	}
	return false
}

// touch connects to addr and waits for the end of the connection. It reports whether the peer, or
// its kernel, has ended it. The error is that of a dial that failed.
func (d *Dialer) touch(ctx context.Context, addr string) (ended bool, err error) {
	dctx, cancel := context.WithTimeout(ctx, DialTimeout)
	defer cancel()
	raw, err := d.cfg.Dial(dctx, "tcp", addr)
	if err != nil {
		return errors.Is(err, syscall.ECONNRESET), err
	}
	c := d.cfg.Conns.Track(raw)
	if c == nil {
		raw.Close()
		return false, ErrClosed
	}
	defer c.Close()
	raw.SetReadDeadline(time.Now().Add(DialTimeout / 2))
	_, err = raw.Read(make([]byte, 1))
	return !IsTimeout(err), nil
}
