package wire

import (
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/flotilla-ha/flotilla/internal/simnet"
	"github.com/flotilla-ha/flotilla/internal/synctest"
	"github.com/flotilla-ha/flotilla/internal/wire/peerconn"
	"github.com/flotilla-ha/flotilla/internal/wire/peertls"
)

// stranger makes a TLS connection to node 2 and reads what it says first.
func stranger(t *testing.T, n *simnet.Network, change func(*tls.Config)) ([]byte, error) {
	t.Helper()
	raw, err := n.Host("z").Dial(t.Context(), "tcp", nodeAt(2))
	if err != nil {
		t.Fatal(err)
	}
	defer raw.Close()
	id, err := peertls.NewNode(secret(1), nodeID(1), "")
	if err != nil {
		t.Fatal(err)
	}
	cfg := id.Client(nodeAt(2), string(peerconn.RPC), "")
	change(cfg)
	c := tls.Client(raw, cfg)
	if err := c.Handshake(); err != nil {
		return nil, err
	}
	return io.ReadAll(c)
}

func TestStrangers(t *testing.T) {
	synctest.Parallel(t)
	other := func(s byte, id string) []tls.Certificate {
		i, err := peertls.NewNode(secret(s), id, "")
		if err != nil {
			t.Fatal(err)
		}
		return []tls.Certificate{i.Certificate()}
	}
	for name, change := range map[string]func(*tls.Config){
		"unknown protocol":             func(c *tls.Config) { c.NextProtos = []string{"h2"} },
		"no certificate":               func(c *tls.Config) { c.Certificates = nil },
		"certificate of another CA":    func(c *tls.Config) { c.Certificates = other(9, nodeID(1)) },
		"certificate that names no ID": func(c *tls.Config) { c.Certificates = other(1, "boss") },
		"TLS 1.2":                      func(c *tls.Config) { c.MinVersion, c.MaxVersion = tls.VersionTLS12, tls.VersionTLS12 },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := simnet.New()
				open(t, n, 2, func(c *Config) {
					c.Handler = http.HandlerFunc(
						func(http.ResponseWriter, *http.Request) { t.Error("a stranger called") },
					)
				})
				if said, err := stranger(t, n, change); bytes.HasPrefix(said, peertls.Answer{}.Encode()) {
					t.Fatal("accepted", err)
				}
			})
		})
	}
	t.Run("no protocol", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			n := simnet.New()
			open(t, n, 2, nil)
			said, err := stranger(t, n, func(c *tls.Config) { c.NextProtos = nil })
			var refused *RefusedError
			if a, e := peertls.ReadAnswer(bytes.NewReader(said)); e != nil || !errors.As(a.Err(), &refused) {
				t.Fatal(said, err)
			}
		})
	})
	t.Run("plain text", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			n := simnet.New()
			open(t, n, 2, nil)
			c, err := n.Host("z").Dial(t.Context(), "tcp", nodeAt(2))
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			io.WriteString(c, "GET / HTTP/1.1\r\nHost: b\r\n\r\n")
			start := time.Now()
			io.Copy(io.Discard, c)
			if d := time.Since(start); d > time.Second {
				t.Fatalf("closed after %v", d)
			}
		})
	})
	t.Run("a server that is no node", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			n := simnet.New()
			a := open(t, n, 1, nil)
			l, err := n.Host("b").Listen("tcp", ":7373")
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			go func() {
				if c, err := l.Accept(); err == nil {
					io.WriteString(c, "SSH-2.0-OpenSSH_9.9\r\n")
					io.Copy(io.Discard, c)
					c.Close()
				}
			}()
			if _, err := a.Call(t.Context(), nodeID(2), "/", nil); err == nil ||
				!strings.Contains(err.Error(), "handshake with b:7373") {
				t.Fatal("called:", err)
			}
			time.Sleep(time.Second) // the server's goroutine must end before the test returns
		})
	})
}

func TestSilentConnections(t *testing.T) {
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		n := simnet.New()
		a, b := open(t, n, 1, nil), open(t, n, 2, nil)
		var silent []net.Conn
		dial := func(host string) {
			c, err := n.Host(host).Dial(t.Context(), "tcp", nodeAt(2))
			if err != nil {
				t.Fatal(err)
			}
			silent = append(silent, c)
		}
		for range 100 {
			dial("y")
		}
		synctest.Wait()
		if got := b.acceptor.Pending(); got != peerconn.MaxPendingHost {
			t.Fatalf("%d connections of one host wait", got)
		}
		for i := range 500 {
			dial(fmt.Sprint("z", i%25))
			if i%50 == 0 { // any number of silent ones does not keep members out
				a.rpc.CloseIdle()
				start := time.Now()
				if _, err := a.Call(t.Context(), nodeID(2), "/", nil); err != nil ||
					time.Since(start) > 10*time.Millisecond {
					t.Fatal(err, time.Since(start))
				}
			}
		}
		synctest.Wait()
		if got := b.acceptor.Pending(); got > peerconn.MaxPending || got < peerconn.MaxPending-peerconn.MaxPendingHost {
			t.Fatalf("%d connections wait", got)
		}
		time.Sleep(peerconn.HandshakeTimeout)
		synctest.Wait()
		if got := b.acceptor.Pending(); got != 0 {
			t.Fatalf("%d connections outlived the deadline", got)
		}
		for _, c := range silent {
			if _, err := c.Read(make([]byte, 1)); err != io.EOF {
				t.Fatal("not closed:", err)
			}
			c.Close()
		}
	})
}

// FuzzServe sends bytes to the port, bare and behind TLS as a member. A member's call must still be
// answered then.
func FuzzServe(f *testing.F) {
	f.Add([]byte("\x16\x03\x01\x00\x05\x01\x00\x00\x01\x00"), uint8(0))
	f.Add([]byte("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00"), uint8(1))
	f.Add([]byte("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n000000000"), uint8(1))
	f.Add([]byte("\x00\x8aRPCHeader\x83"), uint8(2))
	f.Add([]byte("\x00\x01x\xff\xff\xff\xfe"), uint8(3))
	f.Fuzz(func(t *testing.T, data []byte, how uint8) {
		synctest.Test(t, func(t *testing.T) {
			n := simnet.New()
			a, b := open(t, n, 1, nil), open(t, n, 2, discard)
			rpcs := b.Transport().Consumer()
			go func() {
				for {
					select {
					case r := <-rpcs:
						r.Respond(nil, errors.New("no"))
					case <-b.life.Done():
						return
					}
				}
			}()
			var c net.Conn
			var err error
			switch how % 4 {
			case 0:
				c, err = n.Host("z").Dial(t.Context(), "tcp", nodeAt(2))
			case 1:
				c, err = a.dialer.Node(t.Context(), nodeID(2), peerconn.RPC)
			case 2:
				c, err = a.dialer.Node(t.Context(), nodeID(2), peerconn.Raft)
			case 3:
				c, err = a.dialer.Node(t.Context(), nodeID(2), peerconn.Datagrams)
			}
			if err != nil {
				t.Fatal(err)
			}
			c.Write(data)
			if _, err := a.Call(t.Context(), nodeID(2), "/", nil); err != nil {
				t.Fatal(err)
			}
			c.Close()
		})
	})
}
