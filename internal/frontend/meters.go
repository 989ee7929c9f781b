package frontend

import (
	"crypto/tls"
	"reflect"
	"sync/atomic"
	"time"

	"github.com/flotilla-ha/flotilla/internal/meter"
)

// Meters count what happens to the connections of clients, on all ports. The zero Meters is ready.
type Meters struct {
	// Handshakes counts TLS handshakes that have ended. The labels are the version, "1.2" or "1.3",
	// whether the session was resumed, "true" or "false", and the result: "ok", "no certificate" for
	// the name that the client asks for, "timeout", "limit" if too many connections were pending,
	// "silent" if the client went without sending a byte, as simple checks of balancers do, or
	// "failed". Version and resumed are empty unless the result is "ok".
	Handshakes meter.Counters

	// Handshake is how long complete handshakes took, from the client's first byte to the end. The
	// client's own part is in it.
	Handshake meter.Histogram

	// HandshakeWait is how long handshakes waited until they could be computed, because one was being
	// computed on each processor.
	HandshakeWait meter.Histogram

	// Connections is how many connections of clients are open. The health port does not count.
	Connections meter.Gauge

	// Refused counts connections that were refused or cut off. The label is the reason: "limit" if
	// there were too many, "proxy header missing" if a listed balancer sent none or a damaged one,
	// "proxy header not allowed" if its sender is not listed, "silent" if the first byte of a plain
	// connection did not come in time, "stalled" if the client took nothing.
	Refused meter.Counters

	// DrainCut counts requests that were cut because a drain had no more time for them. When a port
	// ends, new connections that had sent no request by then count too.
	DrainCut meter.Counter
}

// Meters returns what the server counts. They may be read at any time.
func (s *Server) Meters() *Meters { return s.limiter.counts.Meters }

// ending is why a handshake has not come to its end.
type ending int32

const (
	endFailed ending = iota // none of those below
	endNoCertificate
	endTimeout
	endLimit
	endSilent
	endings // how many there are
)

// counts are Meters with the counters that connections need, looked up once.
type counts struct {
	*Meters
	completed [2][2]*meter.Counter // handshakes of TLS 1.2 and 1.3, of new and of resumed sessions
	ended     [endings]*meter.Counter

	limit, noHeader, unknownSender, silent, stalled *meter.Counter // of Refused

	completeField int // see completeFieldOf
}

func newCounts() *counts {
	m := new(Meters)
	ok := func(version, resumed string) *meter.Counter { return m.Handshakes.Of(version, resumed, "ok") }
	ended := func(result string) *meter.Counter { return m.Handshakes.Of("", "", result) }
	return &counts{
		Meters: m,
		completed: [2][2]*meter.Counter{
			{ok("1.2", "false"), ok("1.2", "true")},
			{ok("1.3", "false"), ok("1.3", "true")},
		},
		ended: [endings]*meter.Counter{
			endFailed: ended("failed"), endNoCertificate: ended("no certificate"), endTimeout: ended("timeout"),
			endLimit: ended("limit"), endSilent: ended("silent"),
		},
		limit:         m.Refused.Of("limit"),
		noHeader:      m.Refused.Of("proxy header missing"),
		unknownSender: m.Refused.Of("proxy header not allowed"),
		silent:        m.Refused.Of("silent"),
		stalled:       m.Refused.Of("stalled"),
		completeField: completeFieldOf(reflect.TypeFor[tls.Conn]()),
	}
}

// completeFieldOf returns which field of a tls.Conn says that its handshake is complete, -1 if this
// version of Go has it elsewhere. All that package crypto/tls exports for that waits for a
// handshake under way, and the goroutine of the handshake would wait for itself.
func completeFieldOf(conn reflect.Type) int {
	field, ok := conn.FieldByName("isHandshakeComplete")
	if !ok || field.Type != reflect.TypeFor[atomic.Bool]() || len(field.Index) != 1 {
		return -1
	}
	return field.Index[0]
}

// isIncomplete reports whether the handshake of conn is known not to be complete, without waiting
// for it.
func (m *counts) isIncomplete(conn *tls.Conn) bool {
	if m.completeField < 0 {
		return false
	}
	field := reflect.ValueOf(conn).Elem().Field(m.completeField)
	return !(*atomic.Bool)(field.Addr().UnsafePointer()).Load()
}

// complete counts a complete handshake that took d.
func (m *counts) complete(conn *tls.Conn, d time.Duration) {
	m.Handshake.Observe(d)
	if m.completeField < 0 { // so it may not be complete
		m.Handshakes.Inc("", "", "ok")
		return
	}
	state := conn.ConnectionState()
	version, resumed := 0, 0
	if state.Version >= tls.VersionTLS13 {
		version = 1
	}
	if state.DidResume {
		resumed = 1
	}
	m.completed[version][resumed].Inc()
}
