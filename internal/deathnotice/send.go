package deathnotice

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"
)

const (
	retryPause  = 20 * time.Millisecond // between two attempts at one node
	dialTimeout = 2 * time.Second       // for one connection and the node's answer to it
	maxText     = 4 << 10               // bytes of a node's error that are kept
)

// Dial makes connections, as net.Dialer's DialContext does.
type Dial func(ctx context.Context, network, addr string) (net.Conn, error)

// Send sends an encoded notice to all of its nodes at once. It returns nil when one of them says
// that the session is over. It retries until ctx ends, and then returns the last error of each
// node. A nil dial stands for that of a net.Dialer.
func Send(ctx context.Context, notice []byte, dial Dial) error {
	n, config, dial, err := prepare(notice, dial)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	outcomes := make(chan error, len(n.Addrs))
	var senders sync.WaitGroup
	defer senders.Wait()
	defer cancel()
	for _, addr := range n.Addrs {
		senders.Go(func() { outcomes <- retry(ctx, addr, config, dial) })
	}
	var errs []error
	for range n.Addrs {
		err := <-outcomes
		if err == nil {
			return nil
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// Rehearse connects to the nodes of an encoded notice as Send does, and sends nothing. After that
// Send is some milliseconds faster in this process: the code that it needs is in memory. Rehearse
// returns nil if all nodes have accepted the connection.
func Rehearse(ctx context.Context, notice []byte, dial Dial) error {
	n, config, dial, err := prepare(notice, dial)
	if err != nil {
		return err
	}
	outcomes := make(chan error, len(n.Addrs))
	for _, addr := range n.Addrs {
		go func() {
			conn, err := connect(ctx, "tcp", addr, config, dial)
			if err == nil {
				err = conn.Close()
			}
			outcomes <- err
		}()
	}
	var errs []error
	for range n.Addrs {
		errs = append(errs, <-outcomes)
	}
	return errors.Join(errs...)
}

// prepare returns what Send needs.
func prepare(notice []byte, dial Dial) (*Notice, *tls.Config, Dial, error) {
	if dial == nil {
		dial = new(net.Dialer).DialContext
	}
	n, err := Decode(notice)
	if err != nil {
		return nil, nil, nil, err
	}
	config, err := n.config()
	if err != nil {
		return nil, nil, nil, err
	}
	if len(n.Addrs) == 0 {
		return nil, nil, nil, errors.New("the death notice names no node")
	}
	return n, config, dial, nil
}

// retry notifies one node until it accepts the notice or ctx ends. The error that ctx causes in the
// last attempt does not hide an earlier one that says more.
func retry(ctx context.Context, addr string, config *tls.Config, dial Dial) (err error) {
	for ctx.Err() == nil {
		attempt := notify(ctx, addr, config, dial)
		if attempt == nil {
			return nil
		}
		if ctx.Err() == nil || err == nil {
			err = fmt.Errorf("%s: %w", addr, attempt)
		}
		select {
		case <-time.After(retryPause):
		case <-ctx.Done():
		}
	}
	return err
}

// config returns the configuration of the connections.
func (n *Notice) config() (*tls.Config, error) {
	ca, err := x509.ParseCertificate(n.CA)
	if err != nil {
		return nil, fmt.Errorf("the death notice's authority: %w", err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(ca)
	at := time.Unix(n.Time, 0)
	return &tls.Config{
		MinVersion: tls.VersionTLS13,
		Time:       func() time.Time { return at },
		ServerName: n.ServerName,
		NextProtos: []string{n.Protocol},
		Certificates: []tls.Certificate{{
			Certificate: [][]byte{n.Cert}, PrivateKey: ed25519.NewKeyFromSeed(n.Key),
		}},
		InsecureSkipVerify: true, // there are no host names; VerifyConnection verifies the chain
		VerifyConnection: func(s tls.ConnectionState) error {
			_, err := s.PeerCertificates[0].Verify(x509.VerifyOptions{
				Roots: pool, CurrentTime: at, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
			})
			return err
		},
	}, nil
}

// notify sends the notice to one node and waits for the answer. The node passes it on to the
// leader.
func notify(ctx context.Context, addr string, config *tls.Config, dial Dial) error {
	conn, err := connect(ctx, "tcp", addr, config, dial)
	if err != nil {
		return err
	}
	defer conn.Close()
	var h2c http.Protocols
	h2c.SetUnencryptedHTTP2(true) // conn is encrypted already
	// The transport makes one request only.
	transport := &http.Transport{
		Protocols: &h2c, DisableKeepAlives: true, DisableCompression: true,
		DialContext: func(context.Context, string, string) (net.Conn, error) { return conn, nil },
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://node/", bytes.NewReader(nil))
	if err != nil {
		return err
	}
	resp, err := transport.RoundTrip(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, maxText))
	if resp.StatusCode != http.StatusOK {
		return errors.Join(errors.New(strings.TrimSpace(strings.ToValidUTF8(string(text), ""))), err)
	}
	return nil
}

// connect makes an authenticated connection. The node then sends one byte: 1 if it accepts the
// connection, else 2 and the reason.
func connect(ctx context.Context, network, addr string, config *tls.Config, dial Dial) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	raw, err := dial(ctx, network, addr)
	if err != nil {
		return nil, err
	}
	c := tls.Client(raw, config)
	var answer [1]byte
	if err = c.HandshakeContext(ctx); err == nil {
		deadline, _ := ctx.Deadline()
		c.SetReadDeadline(deadline)
		_, err = io.ReadFull(c, answer[:])
	}
	if err == nil && answer[0] != 1 {
		err = errors.New("the node refuses the death notice")
	}
	if err != nil {
		raw.Close()
		return nil, err
	}
	c.SetReadDeadline(time.Time{})
	return c, nil
}
