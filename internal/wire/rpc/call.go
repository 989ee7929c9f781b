package rpc

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"strings"
	"time"

	"github.com/flotilla-ha/flotilla/internal/wire/peerconn"
	"github.com/flotilla-ha/flotilla/internal/wire/peertls"
)

// Error says that the peer answered a call with an error.
type Error struct {
	Status  int    // of HTTP
	Message string // in the peer's words, at most 4 KiB
}

// Error gives the peer's message and status.
func (e *Error) Error() string {
	return fmt.Sprintf("the peer answered with an error: %s (status %d)", e.Message, e.Status)
}

// Call posts body to path at the node id and returns its answer. The node must prove that it is
// that node. The call lasts as long as ctx, and ends earlier when the path to the peer dies. An
// answer that is an error is an [Error].
func (s *Service) Call(ctx context.Context, id, path string, body []byte) ([]byte, error) {
	if !peertls.ValidID(id) {
		return nil, fmt.Errorf("node ID %q is not 32 lower-case hexadecimal digits", id)
	}
	peer, watched := s.peer(id), ""
	l := peer.pinged
	// Pings are not worth a new connection: one that has them serves until it has been at rest.
	if !l.isOpen() && time.Since(s.cfg.Peers.DatagramContact(id)) < s.cfg.Timeout {
		l, watched = peer.quiet, id
	}
	defer l.used()
	var reply []byte
	_, err := s.post(ctx, l.Transport, watched, id, path, body, inMemory(&reply))
	return reply, err
}

// CallAddr posts body to path at whatever node is at addr, host:port, and returns that node's ID
// and its answer. The ID is also returned with an [Error].
func (s *Service) CallAddr(ctx context.Context, addr, path string, body []byte) (id string, reply []byte, err error) {
	id, err = s.post(ctx, s.byAddr, "", addr, path, body, inMemory(&reply))
	return id, reply, err
}

// StreamAddr is CallAddr for an answer of any length, which it copies to w as it comes. After an
// error a part of it may have been copied.
func (s *Service) StreamAddr(ctx context.Context, addr, path string, body []byte, w io.Writer) (id string, err error) {
	return s.post(ctx, s.byAddr, "", addr, path, body, func(r io.Reader) error {
		_, err := io.Copy(w, r)
		return err
	})
}

// inMemory returns a function that reads an answer of at most MaxReply bytes.
func inMemory(reply *[]byte) func(io.Reader) error {
	return func(r io.Reader) (err error) {
		*reply, err = io.ReadAll(io.LimitReader(r, MaxReply+1))
		if err == nil && len(*reply) > MaxReply {
			*reply, err = nil, fmt.Errorf("the answer is too large: %d bytes are allowed", MaxReply)
		}
		return err
	}
}

// post makes a call, and has take read the answer. If watched is a node ID, the connection is
// closed when that node is not heard for two timeouts.
func (s *Service) post(
	ctx context.Context,
	t *http.Transport,
	watched, host, path string,
	body []byte,
	take func(io.Reader) error,
) (id string, err error) {
	if s.cfg.Life.Ended() {
		return "", peerconn.ErrClosed
	}
	if len(body) > MaxRequest {
		return "", fmt.Errorf("a call of %d bytes is too large: %d are allowed", len(body), MaxRequest)
	}
	w := watch{peers: s.cfg.Peers, id: watched, limit: 2 * s.cfg.Timeout}
	defer w.stop()
	var peer string
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{GotConn: func(i httptrace.GotConnInfo) {
		if c, ok := i.Conn.(*peerconn.Conn); ok {
			peer = c.Peer().ID
			w.start(c)
		}
	}})
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://node/", bytes.NewReader(body))
	if err != nil {
		return "", err
	}
	req.URL = &url.URL{Scheme: "http", Host: host, Path: path}
	req.Host = ""
	resp, err := t.RoundTrip(req)
	if err != nil {
		return "", peerconn.Cause(ctx, err)
	}
	defer resp.Body.Close()
	if peer == "" {
		// cannot be: our dial makes every connection
		return "", errors.New("the answer came from nobody")
	}
	s.cfg.Peers.Answered(peer)
	if resp.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(io.LimitReader(resp.Body, maxMessage))
		return peer, &Error{
			Status:  resp.StatusCode,
			Message: strings.TrimSpace(strings.ToValidUTF8(string(text), "")),
		}
	}
	if err := take(resp.Body); err != nil {
		return peer, peerconn.Cause(ctx, err)
	}
	return peer, nil
}
