package wire

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"strings"
	"time"
)

// Bounds of one call.
const (
	MaxRequest = 4 << 20  // bytes in the body of a call
	MaxReply   = 64 << 20 // bytes in the body of an answer

	maxMessage = 4 << 10 // bytes of a CallError's message
)

// peerKey is the key of the caller's ID in a context.
type peerKey struct{}

// Peer returns the ID that the caller of Config.Handler has proven; empty outside of it.
func Peer(ctx context.Context) string {
	id, _ := ctx.Value(peerKey{}).(string)
	return id
}

// processKey is the key of the caller's process in a context.
type processKey struct{}

// Process returns which process of Peer calls; empty if it did not say.
func Process(ctx context.Context) string {
	process, _ := ctx.Value(processKey{}).(string)
	return process
}

// calls is the half of a Port that speaks HTTP/2.
type calls struct {
	port   *Port
	server *http.Server
	queue  chan net.Conn   // authenticated connections, for the server
	byID   *http.Transport // URLs of it have a node ID for host: one connection is kept to each
	byAddr *http.Transport // URLs of it have an address for host
}

func newCalls(p *Port) *calls {
	var h2c http.Protocols
	h2c.SetUnencryptedHTTP2(true) // TLS is below
	// A path that has died is noticed within two time-outs.
	h2 := &http.HTTP2Config{SendPingTimeout: p.cfg.Timeout, PingTimeout: p.cfg.Timeout}
	c := &calls{port: p, queue: make(chan net.Conn)}
	c.server = &http.Server{
		Handler:           http.HandlerFunc(c.handle),
		Protocols:         &h2c,
		HTTP2:             h2,
		ReadHeaderTimeout: greetTimeout,
		IdleTimeout:       2 * time.Minute,
		ErrorLog:          slog.NewLogLogger(p.cfg.Logger.Handler(), slog.LevelDebug),
		// The goroutine of a connection that broke HTTP/2's rules stays for a second: Close waits for it as well.
		ConnState: func(_ net.Conn, s http.ConnState) {
			switch s {
			case http.StateNew: // in the goroutine of serve, which Close waits for
				p.wg.Add(1)
			case http.StateClosed:
				p.wg.Done()
			}
		},
		ConnContext: func(ctx context.Context, nc net.Conn) context.Context {
			if nc, ok := nc.(*conn); ok {
				if nc.will != nil {
					ctx = context.WithValue(ctx, testatorKey{}, nc.will)
				}
				return context.WithValue(context.WithValue(ctx, peerKey{}, nc.peer), processKey{}, nc.process)
			}
			return ctx
		},
	}
	dialID := func(ctx context.Context, _, addr string) (net.Conn, error) {
		id, _, err := net.SplitHostPort(addr)
		if err != nil {
			return nil, err
		}
		return p.whileOpen(ctx, func(ctx context.Context) (*conn, error) { return p.dialNode(ctx, id, alpnCall) })
	}
	dialAddr := func(ctx context.Context, _, addr string) (net.Conn, error) {
		return p.whileOpen(ctx, func(ctx context.Context) (*conn, error) { return p.dialAddr(ctx, addr, alpnCall, "") })
	}
	c.byID = &http.Transport{Protocols: &h2c, HTTP2: h2, DialContext: dialID, IdleConnTimeout: time.Minute, DisableCompression: true}
	c.byAddr = &http.Transport{Protocols: &h2c, HTTP2: h2, DialContext: dialAddr, IdleConnTimeout: 5 * time.Second, DisableCompression: true}
	return c
}

// whileOpen makes a dial of net/http's, which outlives the call that it is for, end with Close, which waits for it.
func (p *Port) whileOpen(ctx context.Context, dial func(context.Context) (*conn, error)) (net.Conn, error) {
	if !p.enter() {
		return nil, ErrClosed
	}
	defer p.wg.Done()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	p.wg.Go(func() {
		select {
		case <-p.done:
			cancel()
		case <-ctx.Done():
		}
	})
	c, err := dial(ctx)
	if err != nil {
		return nil, err // a nil *conn is no nil net.Conn
	}
	return c, nil
}

// serve runs the server until close.
func (c *calls) serve() { c.server.Serve((*callListener)(c)) }

// take hands an authenticated connection to the server.
func (c *calls) take(nc *conn) {
	// net/http clears this deadline when the first bytes of HTTP/2 have come.
	nc.SetReadDeadline(time.Now().Add(greetTimeout))
	select {
	case c.queue <- nc:
	case <-c.port.done:
		nc.Close()
	}
}

func (c *calls) close() {
	c.server.Close()
	c.byID.CloseIdleConnections()
	c.byAddr.CloseIdleConnections()
}

// handle answers one call. It is among the goroutines that Close waits for.
func (c *calls) handle(w http.ResponseWriter, r *http.Request) {
	c.port.peers.heard(Peer(r.Context())) // it may have found its place in the cluster since its connection was made
	if !c.port.enter() {
		http.Error(w, ErrClosed.Error(), http.StatusServiceUnavailable)
		return
	}
	defer c.port.wg.Done()
	if r.ContentLength > MaxRequest {
		http.Error(w, fmt.Sprintf("a call has at most %d bytes", MaxRequest), http.StatusRequestEntityTooLarge)
		return
	}
	if t := testatorOf(r.Context()); t != nil {
		c.execute(w, r, t)
		return
	}
	r.Body = http.MaxBytesReader(w, r.Body, MaxRequest)
	c.port.cfg.Handler.ServeHTTP(w, r)
}

// callListener is calls as the net.Listener of its server.
type callListener calls

// Accept implements net.Listener.
func (l *callListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.queue:
		return c, nil
	case <-l.port.done:
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener. The Port's done does its work.
func (l *callListener) Close() error { return nil }

// Addr implements net.Listener.
func (l *callListener) Addr() net.Addr { return l.port.Addr() }

// Call posts body to path at the node id, which must prove that it is that node, and returns its answer. It does not repeat
// a call: after an error the peer may or may not have carried it out, except for errors from dialling. The call lasts as long
// as ctx, and ends earlier when the path to the peer dies.
func (p *Port) Call(ctx context.Context, id, path string, body []byte) ([]byte, error) {
	if !validID(id) {
		return nil, fmt.Errorf("node ID %q is not 32 lower-case hexadecimal digits", id)
	}
	reply, _, err := p.post(ctx, p.calls.byID, id, path, body)
	return reply, err
}

// CallAddr posts body to path at whatever node is at addr, host:port, and returns that node's ID and its answer. The ID is
// also returned with a *CallError.
func (p *Port) CallAddr(ctx context.Context, addr, path string, body []byte) (id string, reply []byte, err error) {
	reply, id, err = p.post(ctx, p.calls.byAddr, addr, path, body)
	return id, reply, err
}

func (p *Port) post(ctx context.Context, t *http.Transport, host, path string, body []byte) (reply []byte, id string, err error) {
	if p.isClosed() {
		return nil, "", ErrClosed
	}
	if len(body) > MaxRequest {
		return nil, "", fmt.Errorf("a call of %d bytes is too large: %d are allowed", len(body), MaxRequest)
	}
	var peer string
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{GotConn: func(i httptrace.GotConnInfo) {
		if c, ok := i.Conn.(*conn); ok {
			peer = c.peer
		}
	}})
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://node/", bytes.NewReader(body))
	if err != nil {
		return nil, "", err
	}
	req.URL = &url.URL{Scheme: "http", Host: host, Path: path}
	req.Host = ""
	resp, err := t.RoundTrip(req)
	if err != nil {
		return nil, "", cause(ctx, err)
	}
	defer resp.Body.Close()
	if peer == "" {
		return nil, "", errors.New("the answer came from nobody") // cannot be: our dial makes every connection
	}
	p.peers.answered(peer)
	if resp.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(io.LimitReader(resp.Body, maxMessage))
		return nil, peer, &CallError{Status: resp.StatusCode, Message: strings.TrimSpace(strings.ToValidUTF8(string(text), ""))}
	}
	reply, err = io.ReadAll(io.LimitReader(resp.Body, MaxReply+1))
	if err != nil {
		return nil, peer, cause(ctx, err)
	}
	if len(reply) > MaxReply {
		return nil, peer, fmt.Errorf("the answer is too large: %d bytes are allowed", MaxReply)
	}
	return reply, peer, nil
}
