package certs

import (
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"sync"
	"testing"

	"github.com/flotilla-ha/flotilla/internal/testlog"
)

// A client that comes before the certificate is there gets its answer when it is.
func TestHandshakeWaitsForTheFirstCertificate(t *testing.T) {
	skipShort(t)
	storage := newMemStorage()
	gate, asked := make(chan struct{}), make(chan struct{})
	c, err := openCerts(Policy{}, storage, true, func(ctx context.Context) error {
		close(asked)
		select {
		case <-gate:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}, testlog.None())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	addr := serveTLS(t, c, http.NotFoundHandler(), "waits.example")
	<-asked
	result := make(chan error)
	hello := make(chan struct{})
	go func() {
		conn, err := net.Dial("tcp", addr)
		if err != nil {
			result <- err
			return
		}
		defer conn.Close()
		// The roots do not exist yet: that there is a certificate at all is what is asked.
		client := tls.Client(&noticedConn{Conn: conn, wrote: hello}, &tls.Config{ServerName: "waits.example", InsecureSkipVerify: true})
		result <- client.Handshake()
	}()
	<-hello // the node has the client's first words, or will have them before the certificate is there
	close(gate)
	if err := <-result; err != nil {
		t.Errorf("the handshake: %v", err)
	}
}

// noticedConn tells of its first write.
type noticedConn struct {
	net.Conn
	once  sync.Once
	wrote chan struct{}
}

func (c *noticedConn) Write(b []byte) (int, error) {
	n, err := c.Conn.Write(b)
	c.once.Do(func() { close(c.wrote) })
	return n, err
}
