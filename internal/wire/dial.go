package wire

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"
)

// dialNode makes an authenticated connection to a node that the address book knows, and notes whether that worked.
func (p *Port) dialNode(ctx context.Context, id, protocol string) (*conn, error) {
	c, err := p.tryNode(ctx, id, protocol)
	if err != nil {
		switch {
		case protocol == alpnNote && unwilling(err): // raft is not to wait for a peer that only takes no notes
		case protocol == alpnRaft || ctx.Err() == nil: // else it was given up early, which proves nothing about the peer
			p.peers.failed(id, portRefuses(err))
			p.peers.blame(id, err)
		}
		return nil, &dialError{id, err}
	}
	if protocol != alpnCall {
		p.peers.heard(id)
	}
	if protocol == alpnRaft {
		p.peers.reached(id, c.process)
	}
	return c, nil
}

func (p *Port) tryNode(ctx context.Context, id, protocol string) (*conn, error) {
	addr, ok := p.cfg.Resolve(id)
	if !ok {
		return nil, errors.New("its address is not known")
	}
	return p.dialAddr(ctx, addr, protocol, id)
}

// dialAddr makes an authenticated connection to the node want at addr, or to whatever node is there if want is empty, with the first of our secrets that it has.
// It begins with the one that it had the last time.
func (p *Port) dialAddr(ctx context.Context, addr, protocol, want string) (*conn, error) {
	first := p.hint(addr)
	var wrong *WrongSecretError
	for i := range p.ids {
		k := (first + i) % len(p.ids)
		c, err := p.dialWith(ctx, addr, protocol, want, p.ids[k])
		if err == nil {
			p.setHint(addr, k)
			return c, nil
		}
		if !errors.As(err, &wrong) {
			return nil, err
		}
	}
	if p.said.pass("out " + addr) {
		p.cfg.Logger.Warn(wrong.Error())
	}
	return nil, wrong
}

// dialWith makes an authenticated connection with one of our secrets.
func (p *Port) dialWith(ctx context.Context, addr, protocol, want string, as *identity) (_ *conn, err error) {
	dctx, cancel := context.WithTimeout(ctx, dialTimeout)
	raw, err := p.cfg.Dial(dctx, "tcp", addr)
	cancel()
	if err != nil {
		return nil, err
	}
	c, ok := p.track(raw)
	if !ok {
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
	raw.SetDeadline(time.Now().Add(greetTimeout))
	tc := tls.Client(raw, clientTLS(as, addr, protocol, want))
	if err := tc.Handshake(); err != nil {
		if wrong := new(WrongNodeError); errors.As(err, &wrong) {
			return nil, wrong
		}
		return nil, fmt.Errorf("handshake with %s: %w", addr, cause(ctx, err))
	}
	state := tc.ConnectionState()
	if state.NegotiatedProtocol != protocol {
		return nil, fmt.Errorf("handshake with %s: it does not speak %s", addr, protocol)
	}
	id, process, err := nodeOf(state.PeerCertificates[0])
	if err != nil {
		return nil, err
	}
	c.identify(id, process, protocol)
	if want != "" {
		if err := p.fresh(id, process); err != nil {
			return nil, err
		}
	}
	if err := readAnswer(tc); err != nil {
		return nil, fmt.Errorf("handshake with %s: %w", addr, cause(ctx, err))
	}
	if !stop() {
		return nil, context.Cause(ctx)
	}
	c.Conn = tc
	return c, raw.SetDeadline(time.Time{})
}

// cause prefers the reason why a context ended to the error that this led to.
func cause(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// readAnswer reads what the server says before the protocol begins: nil if it takes the connection.
func readAnswer(r io.Reader) error {
	var head [2]byte
	if _, err := io.ReadFull(r, head[:1]); err != nil {
		return fmt.Errorf("no answer: %w", err)
	}
	switch head[0] {
	case answerAccept:
		return nil
	case answerRefuse:
		if _, err := io.ReadFull(r, head[1:]); err != nil {
			return fmt.Errorf("refused without a reason: %w", err)
		}
		text := make([]byte, head[1])
		if _, err := io.ReadFull(r, text); err != nil {
			return fmt.Errorf("refused without a reason: %w", err)
		}
		return &RefusedError{Reason: strings.ToValidUTF8(string(text), "")}
	}
	return fmt.Errorf("answer %d is not known", head[0])
}

// hint returns which of our secrets the node at addr had the last time.
func (p *Port) hint(addr string) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.hints[addr]
}

func (p *Port) setHint(addr string, k int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.hints) >= 1024 {
		clear(p.hints)
	}
	p.hints[addr] = k
}
