package flotilla

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/netip"
	"strings"
	"syscall"
	"testing"
)

// DrainAddr says how many requests it has cut, and nothing if there were none.
func TestDrainAddrSaysWhatIsCut(t *testing.T) {
	SkipShort(t)
	under := make(chan struct{})
	s := serveReal(t, Config{}, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		close(under)
		<-r.Context().Done()
	}))
	asked := make(chan error, 1)
	go func() { asked <- s.post(t) }()
	<-under
	here, elsewhere := netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("127.0.0.2")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.DrainAddr(ctx, elsewhere); err != nil {
		t.Errorf("an address without clients: %v", err)
	}
	err := s.DrainAddr(ctx, netip.AddrFrom16(here.As16()))
	if !errors.Is(err, context.Canceled) || !strings.Contains(err.Error(), "draining 127.0.0.1: 1 requests were cut") {
		t.Errorf("%v, want one request cut", err)
	}
	if err := <-asked; !isCut(err) {
		t.Errorf("a request that was cut was answered, or ended in another way: %v", err)
	}
	if err := s.DrainAddr(t.Context(), netip.Addr{}); err == nil || !strings.Contains(err.Error(), "the address is not valid") {
		t.Errorf("no address is an address: %v", err)
	}
}

// isCut reports whether err is that of a request over HTTP/2 which the server has cut.
func isCut(err error) bool {
	if err != nil && strings.Contains(err.Error(), "server sent GOAWAY and closed the connection") {
		return true // its type is net/http's own
	}
	return errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET)
}

// post sends a request, over HTTP/2 and a connection of its own.
func (s *serving) post(t *testing.T) error {
	transport := &http.Transport{ForceAttemptHTTP2: true, TLSClientConfig: s.tls()}
	defer transport.CloseIdleConnections()
	req, err := http.NewRequestWithContext(t.Context(), "POST", "https://127.0.0.1:"+s.port, strings.NewReader("x"))
	if err != nil {
		return err
	}
	resp, err := transport.RoundTrip(req)
	if err != nil {
		return err
	}
	return resp.Body.Close()
}
