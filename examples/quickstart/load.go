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
	clients        = 6                    // half with a connection that they keep, half with a new one for each request
	clientPause    = 8 * time.Millisecond // between two requests of one client
	requestTimeout = 2500 * time.Millisecond

	// retryPause lets a process that is being killed be gone: until the kernel has closed all that it had, its port still
	// takes connections.
	retryPause = 50 * time.Millisecond
)

// tally is what the clients have seen.
type tally struct {
	sent    int           // requests that were begun and have ended
	failed  int           // of these, without a good answer in the end
	retried int           // of these, sent a second time because the connection broke before any answer
	gap     time.Duration // the longest time between two good answers
	err     error         // of the last that failed
	cause   error         // why the last was sent a second time
}

// load is a number of clients that send requests without end.
type load struct {
	url    string
	cancel context.CancelFunc
	done   sync.WaitGroup

	mu   sync.Mutex // guards the rest
	sum  tally
	last time.Time // of the last good answer, or of the begin
}

// startLoad starts clients of https://domain, which they find at addr. They trust roots only.
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
					return // what was cut off by the end of the show has not failed
				}
				l.note(cause, err)
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

func (l *load) note(cause, err error) {
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

// errReused is the cause of what net/http has sent a second time by itself.
var errReused = errors.New("a used connection was closed")

// request sends one GET, and once more after a pause if its connection breaks before any answer: a GET may be repeated (RFC 9110,
// section 9.2.2), and so do browsers. It returns why it did so. Where it was a used connection, net/http repeats by itself, at once;
// a trace tells, and it counts alike.
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

// broken reports whether err is about a connection, and not about what came over it: a certificate that is not trusted, or an alert,
// is a server's answer too.
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

// get sends one GET and reads the answer, which must be a node's greeting.
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
