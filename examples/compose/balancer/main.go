// Command balancer hands TCP connections to its backends in turn. It is as dumb as they come: it ends no TLS, reads nothing that it
// carries, and checks nobody's health; if a backend does not take a connection at once, it tries the next. It tells the backend where the client is by
// a PROXY header, version 2.
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

// connectTimeout is how long a backend may take to accept a connection, before the next is tried.
const connectTimeout = 250 * time.Millisecond

func main() {
	log.SetFlags(0)
	listen := flag.String("listen", ":443", "where clients come")
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

// carry finds a backend for client, beginning with the one whose turn it is, and copies both ways until both have said all.
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

// pipe copies from src to dst. When src has said all, dst is told so and may go on itself; when either breaks, both end.
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
