package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/flotilla-ha/flotilla"
	"github.com/flotilla-ha/flotilla/clustertest"
)

// server is the chat on a node of a cluster in this process.
type server struct {
	addr string
	stop func() // ends it as SIGTERM does, and waits
}

// startServers starts a chat on three nodes. Its ports are on loopback.
func startServers(t *testing.T) []server {
	t.Helper()
	ports := make([]chan string, 3)
	c := clustertest.New(t, 3, func(i int, cfg *flotilla.Config) {
		ports[i] = make(chan string, 1)
		cfg.TLS.Private = true
		cfg.Timing = flotilla.WAN // other tests keep this machine busy, in real time
		cfg.Listen = func(network, addr string) (net.Listener, error) {
			ln, err := net.Listen(network, "127.0.0.1:0")
			if err == nil && addr == ":443" {
				ports[i] <- ln.Addr().String()
			}
			return ln, err
		}
	})
	c.Settle()
	var all []server
	for i, n := range c.Nodes {
		ctx, cancel := context.WithCancel(t.Context())
		served := make(chan error, 1)
		go func() {
			room := newChat(n)
			err := n.Serve(ctx, room.handler(ctx), "localhost")
			room.wait()
			served <- err
		}()
		all = append(all, server{<-ports[i], sync.OnceFunc(func() {
			cancel()
			if err := <-served; err != nil {
				t.Errorf("n%d: %v", i, err)
			}
		})})
		t.Cleanup(all[i].stop)
	}
	return all
}

// visitor is the other side of a WebSocket.
type visitor struct {
	t    *testing.T
	conn net.Conn
	in   *bufio.Reader
}

// request asks to open a WebSocket, and returns the answer.
func request(t *testing.T, addr, query string, header ...string) (*visitor, *http.Response) {
	t.Helper()
	dialer := tls.Dialer{Config: &tls.Config{
		ServerName: "localhost", InsecureSkipVerify: true, // the cluster's own authority has signed
	}}
	conn, err := dialer.DialContext(t.Context(), "tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(time.Minute)) // so a test fails instead of hanging
	// The key is that of RFC 6455, section 1.3.
	lines := append([]string{
		"GET /chat?" + query + " HTTP/1.1", "Host: localhost", "Connection: keep-alive, Upgrade", "Upgrade: websocket",
		"Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
	}, header...)
	if _, err := io.WriteString(conn, strings.Join(lines, "\r\n")+"\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	v := &visitor{t, conn, bufio.NewReader(conn)}
	resp, err := http.ReadResponse(v.in, nil)
	if err != nil {
		t.Fatal(err)
	}
	return v, resp
}

// visit opens a WebSocket.
func visit(t *testing.T, addr, name, after string) *visitor {
	t.Helper()
	v, resp := request(t, addr, "name="+name+"&after="+after)
	if resp.StatusCode != http.StatusSwitchingProtocols || resp.Header.Get("Sec-WebSocket-Accept") != "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" {
		t.Fatalf("it answers %s, %v", resp.Status, resp.Header)
	}
	return v
}

func (v *visitor) say(text string) {
	v.t.Helper()
	if _, err := io.WriteString(v.conn, clientFrame(kindText, true, text)); err != nil {
		v.t.Error(err)
	}
}

// next returns the next frame.
func (v *visitor) next() (kind byte, body []byte) {
	v.t.Helper()
	var head [4]byte
	if _, err := io.ReadFull(v.in, head[:2]); err != nil {
		v.t.Fatal(err)
	}
	size := int(head[1])
	if size == 126 {
		if _, err := io.ReadFull(v.in, head[2:]); err != nil {
			v.t.Fatal(err)
		}
		size = int(binary.BigEndian.Uint16(head[2:]))
	}
	body = make([]byte, size)
	if _, err := io.ReadFull(v.in, body); err != nil {
		v.t.Fatal(err)
	}
	return head[0] & 0x0F, body
}

// hear returns the next n messages.
func (v *visitor) hear(n int) (all []message) {
	v.t.Helper()
	for range n {
		kind, body := v.next()
		var m message
		if err := json.Unmarshal(body, &m); kind != kindText || err != nil || m.Number == 0 {
			v.t.Fatalf("a frame of kind %d: %q", kind, body)
		}
		all = append(all, m)
	}
	return all
}

// Visitors of different nodes see all messages in the same order. One who comes later gets those
// that are there. One whose node ends goes on at another node: nothing is lost, and nothing comes
// twice.
func TestChat(t *testing.T) {
	if testing.Short() {
		t.Skip("a slow test: it runs without -short")
	}
	servers := startServers(t)
	const each = 20
	var visitors []*visitor
	for i, s := range servers {
		visitors = append(visitors, visit(t, s.addr, fmt.Sprint("visitor", i), ""))
	}
	var saying sync.WaitGroup
	for i, v := range visitors {
		saying.Go(func() {
			for k := range each {
				v.say(fmt.Sprintf("%d of %d", k, i))
			}
		})
	}
	heard := visitors[0].hear(each * len(visitors))
	for i, v := range visitors[1:] {
		if diff := cmp.Diff(heard, v.hear(each*len(visitors))); diff != "" {
			t.Errorf("visitor %d hears another order (-the first +this one):\n%s", i+1, diff)
		}
	}
	saying.Wait()
	said := make(map[string]int)
	for i, m := range heard {
		if m.Number != uint64(i+1) || m.From != "visitor"+m.Node[1:] || m.Text != fmt.Sprintf("%d of %s", said[m.From], m.Node[1:]) {
			t.Errorf("message %d is %+v", i+1, m)
		}
		said[m.From]++
	}
	if diff := cmp.Diff(heard, visit(t, servers[2].addr, "late", "").hear(len(heard))); diff != "" {
		t.Errorf("who comes later hears (-want +got):\n%s", diff)
	}

	servers[0].stop()
	if kind, body := visitors[0].next(); kind != kindClose || int(binary.BigEndian.Uint16(body)) != goingAway {
		t.Errorf("at the end of its node a visitor gets kind %d, %v", kind, body)
	}
	visitors[1].say("while you were away")
	away := visitors[1].hear(1)
	back := visit(t, servers[1].addr, "visitor0", fmt.Sprintf("%020d", len(heard)))
	if diff := cmp.Diff(away, back.hear(1)); diff != "" {
		t.Errorf("back at another node (-want +got):\n%s", diff)
	}
	back.say("here I am")
	if diff := cmp.Diff(visitors[2].hear(2), append(away, back.hear(1)...)); diff != "" {
		t.Errorf("in the end (-the third +the first):\n%s", diff)
	}
}

// What is no visit is refused with a reason, and so is what is no message.
func TestRefuses(t *testing.T) {
	if testing.Short() {
		t.Skip("a slow test: it runs without -short")
	}
	addr := startServers(t)[0].addr
	for _, test := range []struct {
		name, query, header string
		want                int
	}{
		{"no name", "", "", http.StatusBadRequest},
		{"a long name", "name=" + strings.Repeat("n", maxName+1), "", http.StatusBadRequest},
		{"the page of another host", "name=n", "Origin: https://evil.example", http.StatusForbidden},
		{"a page of nowhere", "name=n", "Origin: null", http.StatusForbidden},
		{"its own page", "name=n", "Origin: https://localhost", http.StatusSwitchingProtocols},
	} {
		var header []string
		if test.header != "" {
			header = append(header, test.header)
		}
		if _, resp := request(t, addr, test.query, header...); resp.StatusCode != test.want {
			t.Errorf("%s: %s, want %d", test.name, resp.Status, test.want)
		}
	}
	v := visit(t, addr, "n", "")
	for _, text := range []string{" ", strings.Repeat("a", maxText+1)} {
		v.say(text)
		kind, body := v.next()
		var f failure
		if err := json.Unmarshal(body, &f); kind != kindText || err != nil || !strings.Contains(f.Error, "1 to 1000 bytes") {
			t.Errorf("%.5q is answered by %q", text, body)
		}
	}
}
