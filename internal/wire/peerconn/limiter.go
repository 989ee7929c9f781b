package peerconn

import (
	"container/list"
	"net"
	"sync"
)

// limiter bounds the connections that have not authenticated yet. None of them queues: over a bound
// the connection that has been silent for longest is closed. If the bound is that of one host, it
// is that host's oldest. If the newest were closed instead, 256 silent connections would keep
// members out.
type limiter struct {
	mu    sync.Mutex
	order list.List // of *pending, oldest first
	hosts map[string]int
}

// pending is a connection that has not authenticated yet.
type pending struct {
	c    *Conn
	host string
	at   *list.Element // nil once it has left
}

func newLimiter() *limiter { return &limiter{hosts: make(map[string]int)} }

// enter counts c in, and closes another connection if there are too many. It reports whether it
// has.
func (l *limiter) enter(c *Conn) (me *pending, full bool) {
	me = &pending{c: c, host: hostOf(c.raw.RemoteAddr())}
	victim := l.add(me)
	if victim != nil {
		victim.c.Close()
	}
	return me, victim != nil
}

func (l *limiter) add(me *pending) (victim *pending) {
	l.mu.Lock()
	defer l.mu.Unlock()
	hostFull := l.hosts[me.host] >= MaxPendingHost
	if hostFull || l.order.Len() >= MaxPending {
		for e := l.order.Front(); e != nil; e = e.Next() {
			if v := e.Value.(*pending); !hostFull || v.host == me.host {
				victim = v
				l.remove(v)
				break
			}
		}
	}
	me.at = l.order.PushBack(me)
	l.hosts[me.host]++
	return victim
}

// leave counts a connection out. It may be called again.
func (l *limiter) leave(me *pending) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.remove(me)
}

// remove needs mu.
func (l *limiter) remove(me *pending) {
	if me.at == nil {
		return
	}
	l.order.Remove(me.at)
	me.at = nil
	if l.hosts[me.host]--; l.hosts[me.host] == 0 {
		delete(l.hosts, me.host)
	}
}

// len returns the number of connections that have not authenticated yet.
func (l *limiter) len() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.order.Len()
}

// hostOf returns the host part of an address.
func hostOf(addr net.Addr) string {
	if addr == nil {
		return ""
	}
	host, _, err := net.SplitHostPort(addr.String())
	if err != nil {
		return addr.String()
	}
	return host
}
