package wire

import (
	"container/list"
	"net"
	"sync"
)

// Caps on connections that have not authenticated yet.
const (
	maxGreets     = 256 // in all
	maxHostGreets = 32  // from one host
)

// gate bounds the connections that have not authenticated yet. Nobody queues: over a cap the connection that has been silent
// for longest is closed, of the same host if it is that host's cap. A member authenticates within milliseconds, so it gets in
// past any number of connections that only wait; were the newest closed instead, 256 silent ones would keep members out.
type gate struct {
	mu    sync.Mutex
	order list.List // of *greet, oldest first
	hosts map[string]int
}

type greet struct {
	c    *conn
	host string
	at   *list.Element // nil once it has left
}

func newGate() *gate { return &gate{hosts: make(map[string]int)} }

// enter counts c in, and closes another connection if there are too many.
func (g *gate) enter(c *conn) *greet {
	me := &greet{c: c, host: hostOf(c.raw.RemoteAddr())}
	if victim := g.add(me); victim != nil {
		victim.c.Close()
	}
	return me
}

func (g *gate) add(me *greet) (victim *greet) {
	g.mu.Lock()
	defer g.mu.Unlock()
	crowded := g.hosts[me.host] >= maxHostGreets
	if crowded || g.order.Len() >= maxGreets {
		for e := g.order.Front(); e != nil; e = e.Next() {
			if v := e.Value.(*greet); !crowded || v.host == me.host {
				victim = v
				g.remove(v)
				break
			}
		}
	}
	me.at = g.order.PushBack(me)
	g.hosts[me.host]++
	return victim
}

// leave counts c out.
func (g *gate) leave(me *greet) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.remove(me)
}

// remove needs mu.
func (g *gate) remove(me *greet) {
	if me.at == nil {
		return
	}
	g.order.Remove(me.at)
	me.at = nil
	if g.hosts[me.host]--; g.hosts[me.host] == 0 {
		delete(g.hosts, me.host)
	}
}

// len returns the number of connections within.
func (g *gate) len() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.order.Len()
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
