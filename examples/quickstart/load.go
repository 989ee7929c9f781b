package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"strings"
	"sync"
	"time"
)

const (
	clients        = 6                    // half keep a connection, half open one for each request
	clientPause    = 8 * time.Millisecond // between two requests of one client
	requestTimeout = 2500 * time.Millisecond

	// retryPause is enough for the end of a killed process. Its port still accepts connections
	// until the kernel has closed everything.
	retryPause = 50 * time.Millisecond
)

// tally counts what the clients have seen.
type tally struct {
	sent    int           // requests that have ended
	failed  int           // of these, without a good answer
	retried int           // of these, sent again because the connection broke before any answer
	gap     time.Duration // the longest time between two good answers
	err     error         // of the last failure
	cause   error         // of the last retry
}

// load is a number of clients that send requests all the time.
type load struct {
	url    string
	cancel context.CancelFunc
	done   sync.WaitGroup

	mu   sync.Mutex // guards the rest
	sum  tally
	last time.Time // of the last good answer, or of the start
}

// startLoad starts clients of https://domain, which is at addr. They trust only roots.
func startLoad(ctx context.Context, domain, addr string, roots *x509.CertPool) *load {
	ctx, cancel := context.WithCancel(ctx)
	_, port, _ := net.SplitHostPort(addr)
	l := &load{url: "https://" + net.JoinHostPort(domain, port) + "/", cancel: cancel, last: time.Now()}
	for i := range clients {
		transport := &http.Transport{
			TLSClientConfig:   &tls.Config{RootCAs: roots, ServerName: domain},
			DisableKeepAlives: i%2 == 0,
			DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
				return new(net.Dialer).DialContext(ctx, network, addr)
			},
		}
		client := &http.Client{Transport: transport, Timeout: requestTimeout}
		l.done.Go(func() {
			defer transport.CloseIdleConnections()
			pause := time.NewTicker(clientPause)
			defer pause.Stop()
			for {
				select {
				case <-ctx.Done():
					return
				case <-pause.C:
				}
				cause, err := request(ctx, client, l.url)
				if ctx.Err() != nil {
					return // the end of the load is no failure
				}
				l.record(cause, err)
			}
		})
	}
	return l
}

// close ends the clients.
func (l *load) close() {
	l.cancel()
	l.done.Wait()
}

func (l *load) record(cause, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.sum.sent++
	if cause != nil {
		l.sum.retried++
		l.sum.cause = cause
	}
	if err != nil {
		l.sum.failed++
		l.sum.err = err
		return
	}
	now := time.Now()
	l.sum.gap = max(l.sum.gap, now.Sub(l.last))
	l.last = now
}

// now returns the tally since the last take.
func (l *load) now() tally {
	l.mu.Lock()
	defer l.mu.Unlock()
	t := l.sum
	t.gap = max(t.gap, time.Since(l.last)) // the gap may not be over
	return t
}

// take returns the tally and begins a new one.
func (l *load) take() tally {
	l.mu.Lock()
	defer l.mu.Unlock()
	t := l.sum
	t.gap = max(t.gap, time.Since(l.last))
	l.sum = tally{}
	return t
}

// errReused is the cause of a retry that net/http makes by itself.
var errReused = errors.New("a used connection was closed")

// request sends one GET. If the connection breaks before any answer, it sends the GET again after a
// pause, as browsers do: a GET may be repeated (RFC 9110, section 9.2.2). It returns the cause of
// the retry. On a used connection net/http retries by itself, at once. A trace shows that, and it
// counts too.
func request(ctx context.Context, client *http.Client, url string) (cause, err error) {
	for again := true; ; again = false {
		conns, answered := 0, false
		var mu sync.Mutex // guards conns and answered: hooks may run after the end of the request
		trace := httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
			GotConn:              func(httptrace.GotConnInfo) { mu.Lock(); conns++; mu.Unlock() },
			GotFirstResponseByte: func() { mu.Lock(); answered = true; mu.Unlock() },
		})
		err = get(trace, client, url)
		mu.Lock()
		if conns > 1 && cause == nil {
			cause = errReused
		}
		final := answered
		mu.Unlock()
		if err == nil || final || !again || !broken(err) {
			return cause, err
		}
		cause = err
		select {
		case <-ctx.Done():
			return cause, err
		case <-time.After(retryPause):
		}
	}
}

// broken returns true if the connection itself failed. An untrusted certificate or an alert is an
// answer of the server.
func broken(err error) bool {
	var verify *tls.CertificateVerificationError
	if errors.As(err, &verify) {
		return false
	}
	var op *net.OpError
	if errors.As(err, &op) && op.Op == "remote error" {
		return false // this is how crypto/tls returns an alert
	}
	var netErr net.Error
	if errors.As(err, &netErr) && netErr.Timeout() {
		return false // slow is not broken
	}
	return true
}

// get sends one GET and reads the answer, which must be the greeting of a node.
func get(ctx context.Context, client *http.Client, url string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 1<<10))
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK || !strings.HasPrefix(string(body), "hello from ") {
		return fmt.Errorf("answered %s: %.60q", resp.Status, body)
	}
	return nil
}
