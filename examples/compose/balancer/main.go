// Command balancer sends TCP connections to its backends in turn. It is very simple: it does not
// end TLS, does not read what it carries, and makes no health checks. If a backend does not accept
// a connection at once, it tries the next one. A PROXY header of version 2 tells the backend the
// address of the client.
//
//	balancer -listen :443 198.18.0.11:443 198.18.0.12:443 198.18.0.13:443
package main

import (
	"context"
	"errors"
	"flag"
	"io"
	"log"
	"net"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	proxyproto "github.com/pires/go-proxyproto"
)

// connectTimeout bounds the wait for a backend to accept a connection. Then the next one is tried.
const connectTimeout = 250 * time.Millisecond

func main() {
	log.SetFlags(0)
	listen := flag.String("listen", ":443", "the address for clients")
	flag.Parse()
	backends := flag.Args()
	if len(backends) == 0 {
		log.Fatal("usage: balancer [-listen ADDRESS] BACKEND...")
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	ln, err := net.Listen("tcp", *listen)
	if err != nil {
		log.Fatal(err)
	}
	context.AfterFunc(ctx, func() { ln.Close() })
	for turn := 0; ; turn++ {
		client, err := ln.Accept()
		if errors.Is(err, net.ErrClosed) {
			return // connections end with the process
		}
		if err != nil {
			log.Fatal(err)
		}
		go carry(client.(*net.TCPConn), backends, turn)
	}
}

// carry finds a backend for the client, and copies in both directions until both have sent
// everything. It begins with backend number turn.
func carry(client *net.TCPConn, backends []string, turn int) {
	defer client.Close()
	for i := range backends {
		conn, err := net.DialTimeout("tcp", backends[(turn+i)%len(backends)], connectTimeout)
		if err != nil {
			continue
		}
		node := conn.(*net.TCPConn)
		defer node.Close()
		if _, err := proxyproto.HeaderProxyFromAddrs(2, client.RemoteAddr(), client.LocalAddr()).WriteTo(node); err != nil {
			return
		}
		var back sync.WaitGroup
		back.Go(func() { pipe(client, node) })
		pipe(node, client)
		back.Wait()
		return
	}
}

// pipe copies from src to dst. When src has sent everything, dst sees the end and may still send.
// If one breaks, both end.
func pipe(dst, src *net.TCPConn) {
	_, err := io.Copy(dst, src)
	if err == nil {
		err = dst.CloseWrite()
	}
	if err != nil {
		dst.Close()
		src.Close()
	}
}
