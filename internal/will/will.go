// Package will is what a process leaves to another one on the same machine, so that this one can tell the cluster of its death: where
// the cluster is, and a credential that is good for nothing else. It knows neither raft nor the secret, since whoever executes a will
// should be small.
package will

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

	"github.com/flotilla-ha/flotilla/internal/codec"
)

const (
	version  = 1
	pause    = 20 * time.Millisecond // between two attempts at one node
	patience = 2 * time.Second       // for one connection and its greeting
	maxText  = 4 << 10
)

// Will is one. Its fields are as in crypto/tls.
type Will struct {
	Addrs      []string // of nodes; any of them will do
	ServerName string   // what a connection asks for
	Protocol   string   // of ALPN
	Time       int64    // Unix seconds as of which certificates are verified: a wrong clock is to do no harm
	CA         []byte   // DER
	Cert       []byte   // DER
	Key        []byte   // seed of the Ed25519 key
}

// Encode returns the will's bytes.
func (w *Will) Encode() []byte {
	e := codec.Encoder{}
	e.Byte(version)
	e.Uint(uint64(len(w.Addrs)))
	for _, a := range w.Addrs {
		e.String(a)
	}
	e.String(w.ServerName)
	e.String(w.Protocol)
	e.Int(w.Time)
	for _, b := range [][]byte{w.CA, w.Cert, w.Key} {
		e.Bytes(b)
	}
	return e.B
}

// Decode is the inverse of Encode.
func Decode(b []byte) (*Will, error) {
	d := codec.Decoder{B: b}
	if v := d.Byte(); v != version {
		return nil, fmt.Errorf("version %d of a will is not known to this version of flotilla", v)
	}
	w := new(Will)
	for range d.Count() {
		w.Addrs = append(w.Addrs, d.String())
	}
	w.ServerName, w.Protocol, w.Time = d.String(), d.String(), d.Int()
	w.CA, w.Cert, w.Key = d.Bytes(), d.Bytes(), d.Bytes()
	if err := d.End(); err != nil {
		return nil, err
	}
	if len(w.Key) != ed25519.SeedSize {
		return nil, codec.ErrMalformed
	}
	return w, nil
}

// Dial makes connections, as net.Dialer's DialContext does.
type Dial func(ctx context.Context, network, addr string) (net.Conn, error)

// Execute tells the nodes, all at once, and returns nil when one says that it is done. It tries until ctx ends. A nil dial is a net.Dialer's.
func Execute(ctx context.Context, b []byte, dial Dial) error {
	if dial == nil {
		dial = new(net.Dialer).DialContext
	}
	w, err := Decode(b)
	if err != nil {
		return err
	}
	config, err := w.config()
	if err != nil {
		return err
	}
	if len(w.Addrs) == 0 {
		return errors.New("the will names nobody")
	}
	ctx, cancel := context.WithCancel(ctx)
	outcomes := make(chan error, len(w.Addrs))
	var tellers sync.WaitGroup
	defer tellers.Wait()
	defer cancel()
	for _, addr := range w.Addrs {
		tellers.Go(func() {
			var err error
			for ctx.Err() == nil {
				attempt := tell(ctx, addr, config, dial)
				if attempt == nil {
					outcomes <- nil
					return
				}
				if ctx.Err() == nil || err == nil {
					err = fmt.Errorf("%s: %w", addr, attempt)
				}
				select {
				case <-time.After(pause):
				case <-ctx.Done():
				}
			}
			outcomes <- err
		})
	}
	var errs []error
	for range w.Addrs {
		err := <-outcomes
		if err == nil {
			return nil
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

func (w *Will) config() (*tls.Config, error) {
	ca, err := x509.ParseCertificate(w.CA)
	if err != nil {
		return nil, fmt.Errorf("the will's authority: %w", err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(ca)
	at := time.Unix(w.Time, 0)
	return &tls.Config{
		MinVersion:         tls.VersionTLS13,
		Time:               func() time.Time { return at },
		ServerName:         w.ServerName,
		NextProtos:         []string{w.Protocol},
		Certificates:       []tls.Certificate{{Certificate: [][]byte{w.Cert}, PrivateKey: ed25519.NewKeyFromSeed(w.Key)}},
		InsecureSkipVerify: true, // there are no host names; VerifyConnection verifies the chain
		VerifyConnection: func(s tls.ConnectionState) error {
			_, err := s.PeerCertificates[0].Verify(x509.VerifyOptions{Roots: pool, CurrentTime: at, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}})
			return err
		},
	}, nil
}

// tell tells one node, which passes it on to the leader, and waits for its answer.
func tell(ctx context.Context, addr string, config *tls.Config, dial Dial) error {
	var h2c http.Protocols
	h2c.SetUnencryptedHTTP2(true) // TLS is below
	conn, err := greet(ctx, "tcp", addr, config, dial)
	if err != nil {
		return err
	}
	defer conn.Close()
	transport := &http.Transport{Protocols: &h2c, DisableKeepAlives: true, DisableCompression: true, DialContext: func(context.Context, string, string) (net.Conn, error) {
		return conn, nil // there is one request
	}}
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

// greet makes an authenticated connection. The node speaks first: 1 if it takes the connection, else 2 and why not.
func greet(ctx context.Context, network, addr string, config *tls.Config, dial Dial) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
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
		err = errors.New("the node refuses the will")
	}
	if err != nil {
		raw.Close()
		return nil, err
	}
	c.SetReadDeadline(time.Time{})
	return c, nil
}
