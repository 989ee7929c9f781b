package rpc

import "net"

// queue is a net.Listener of connections that were accepted and authenticated elsewhere.
type queue struct {
	conns chan net.Conn
	done  <-chan struct{}
}

func newQueue(done <-chan struct{}) *queue { return &queue{conns: make(chan net.Conn), done: done} }

// put hands c to Accept, or closes it at the end.
func (q *queue) put(c net.Conn) {
	select {
	case q.conns <- c:
	case <-q.done:
		c.Close()
	}
}

// Accept implements net.Listener.
func (q *queue) Accept() (net.Conn, error) {
	select {
	case c := <-q.conns:
		return c, nil
	case <-q.done:
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener. It does nothing: done ends Accept.
func (q *queue) Close() error { return nil }

// Addr implements net.Listener.
func (q *queue) Addr() net.Addr { return &net.TCPAddr{} }
