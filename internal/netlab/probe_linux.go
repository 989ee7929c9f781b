package netlab

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Probe is a client that asks a responder for its name at a fixed interval. The questions do not
// wait for each other.
type Probe struct {
	interval, timeout time.Duration
	stop              chan struct{}
	running           sync.WaitGroup
	end               func() error

	mu       sync.Mutex
	attempts []Attempt
	latest   Attempt
}

// ProbeUDP sends a datagram every interval; 0 is 5 ms. Nothing is sent twice, so it measures
// exactly how long an address was away. A datagram counts as lost after a second without an answer.
func (h *Host) ProbeUDP(to netip.AddrPort, interval time.Duration) (*Probe, error) {
	p := newProbe(interval, time.Second)
	var conn *net.UDPConn
	err := h.Do(func() (err error) {
		conn, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(unspecified(to.Addr()), 0)))
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", h.Name, err)
	}
	p.end = conn.Close
	p.running.Go(func() {
		buf := make([]byte, 256)
		for {
			n, _, err := conn.ReadFromUDPAddrPort(buf)
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if err == nil && n >= 8 {
				p.answered(int(binary.BigEndian.Uint64(buf)), string(buf[8:n]), nil)
			}
		}
	})
	p.running.Go(func() {
		p.every(func(n int) {
			if _, err := conn.WriteToUDPAddrPort(binary.BigEndian.AppendUint64(nil, uint64(n)), to); err != nil {
				p.answered(n, "", err)
			}
		})
	})
	return p, nil
}

// ProbeTCP opens a connection every interval, and reads the name of the responder to the end; 0 is
// 5 ms. The kernel repeats a lost SYN after a second, as for every client. An attempt fails after
// three seconds without an answer.
func (h *Host) ProbeTCP(to netip.AddrPort, interval time.Duration) (*Probe, error) {
	p := newProbe(interval, 3*time.Second)
	p.end = func() error { return nil }
	p.running.Go(func() {
		// One thread stays in the namespace and makes all sockets.
		err := h.Do(func() error {
			p.every(func(n int) {
				conn, err := connect(to)
				if err != nil {
					p.answered(n, "", err)
					return
				}
				p.running.Go(func() {
					defer conn.Close()
					name, err := readAll(conn, p.timeout)
					p.answered(n, name, err)
				})
			})
			return nil
		})
		if err != nil {
			p.answered(p.sent(), "", err)
		}
	})
	return p, nil
}

func newProbe(interval, timeout time.Duration) *Probe {
	if interval == 0 {
		interval = 5 * time.Millisecond
	}
	return &Probe{interval: interval, timeout: timeout, stop: make(chan struct{})}
}

func unspecified(a netip.Addr) netip.Addr {
	if a.Is4() {
		return netip.IPv4Unspecified()
	}
	return netip.IPv6Unspecified()
}

// connect begins to connect from the namespace of the calling thread.
func connect(to netip.AddrPort) (*os.File, error) {
	var family int
	var sa unix.Sockaddr
	if to.Addr().Is4() {
		family, sa = unix.AF_INET, &unix.SockaddrInet4{Addr: to.Addr().As4(), Port: int(to.Port())}
	} else {
		family, sa = unix.AF_INET6, &unix.SockaddrInet6{Addr: to.Addr().As16(), Port: int(to.Port())}
	}
	fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	if err := unix.Connect(fd, sa); err != nil && err != unix.EINPROGRESS {
		unix.Close(fd)
		return nil, err
	}
	return os.NewFile(uintptr(fd), to.String()), nil
}

func readAll(conn *os.File, timeout time.Duration) (string, error) {
	if err := conn.SetDeadline(time.Now().Add(timeout)); err != nil {
		return "", err
	}
	name, err := io.ReadAll(conn)
	if err == nil && len(name) == 0 {
		err = io.ErrUnexpectedEOF
	}
	return string(name), err
}

// every calls send at each interval, with the number of the attempt.
func (p *Probe) every(send func(n int)) {
	ticker := time.NewTicker(p.interval)
	defer ticker.Stop()
	for {
		send(p.sent())
		select {
		case <-ticker.C:
		case <-p.stop:
			return
		}
	}
}

// sent records the next attempt and returns its number.
func (p *Probe) sent() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.attempts = append(p.attempts, Attempt{Sent: time.Now()})
	return len(p.attempts) - 1
}

func (p *Probe) answered(n int, by string, err error) {
	now := time.Now()
	p.mu.Lock()
	defer p.mu.Unlock()
	if n < 0 || n >= len(p.attempts) || !p.attempts[n].Answered.IsZero() {
		return
	}
	if p.attempts[n].Err = err; err == nil {
		p.attempts[n].Answered, p.attempts[n].By = now, by
		p.latest = p.attempts[n]
	}
}

// Close stops asking, and waits for the open connections.
func (p *Probe) Close() error {
	close(p.stop)
	err := p.end()
	p.running.Wait()
	return err
}

// Report evaluates what the client got from one time to another.
func (p *Probe) Report(from, to time.Time) Service {
	return serviceOf(p.Attempts(), from, to, p.interval, p.timeout)
}

// Latest returns the attempt whose answer arrived last; the zero value before the first answer.
func (p *Probe) Latest() Attempt {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.latest
}

// Attempts returns all attempts in the order of sending.
func (p *Probe) Attempts() []Attempt {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.attempts)
}
