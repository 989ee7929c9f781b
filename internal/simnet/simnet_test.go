package simnet

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/flotilla-ha/flotilla/internal/synctest"
)

// pair returns the two ends of a connection from host a to host b. Both are closed when the test
// ends.
func pair(t *testing.T, n *Network) (a, b net.Conn) {
	t.Helper()
	l := listen(t, n.Host("b"), ":0")
	a, err := n.Host("a").Dial(t.Context(), "tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	if b, err = l.Accept(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.Close(); b.Close() })
	return a, b
}

func listen(t *testing.T, h *Host, address string) net.Listener {
	t.Helper()
	l, err := h.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

func write(t *testing.T, c net.Conn, text string) {
	t.Helper()
	if n, err := io.WriteString(c, text); err != nil || n != len(text) {
		t.Fatalf("Write: %d, %v", n, err)
	}
}

// expect reads exactly this text.
func expect(t *testing.T, c net.Conn, want string) {
	t.Helper()
	got := make([]byte, len(want))
	if _, err := io.ReadFull(c, got); err != nil {
		t.Fatalf("Read: %v", err)
	}
	if diff := cmp.Diff(want, string(got)); diff != "" {
		t.Fatal(diff)
	}
}

// silent checks that nothing, neither bytes nor an end, arrives on c within an hour.
func silent(t *testing.T, c net.Conn) {
	t.Helper()
	c.SetReadDeadline(time.Now().Add(time.Hour))
	if n, err := c.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("Read: %d, %v", n, err)
	}
	c.SetReadDeadline(time.Time{})
}

// fails reads and checks the error.
func fails(t *testing.T, c net.Conn, want error) {
	t.Helper()
	if n, err := c.Read(make([]byte, 1)); n != 0 || !errors.Is(err, want) {
		t.Fatalf("Read: %d, %v; want %v", n, err, want)
	}
}

func TestListen(t *testing.T) {
	h := New().Host("a")
	first := listen(t, h, ":7373")
	if diff := cmp.Diff([]string{"tcp", "a:7373"}, []string{first.Addr().Network(), first.Addr().String()}); diff != "" {
		t.Fatal(diff)
	}
	for _, c := range []struct {
		network, address string
		want             error // nil: any
	}{
		{"tcp", ":7373", syscall.EADDRINUSE},
		{"tcp", "a:7373", syscall.EADDRINUSE},
		{"tcp4", "0.0.0.0:7373", syscall.EADDRINUSE},
		{"tcp", "b:7374", syscall.EADDRNOTAVAIL},
		{"udp", ":7374", net.UnknownNetworkError("udp")},
		{"tcp", ":http", nil},
		{"tcp", ":65536", nil},
		{"tcp", "7374", nil},
	} {
		t.Run(c.network+" "+c.address, func(t *testing.T) {
			_, err := h.Listen(c.network, c.address)
			var op *net.OpError
			if !errors.As(err, &op) || c.want != nil && !errors.Is(err, c.want) {
				t.Fatalf("%v, want %v", err, c.want)
			}
		})
	}
	x, y := listen(t, h, ":0"), listen(t, h, "localhost:0")
	if x.Addr() == y.Addr() {
		t.Fatalf("both listeners have %v", x.Addr())
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	if err := first.Close(); !errors.Is(err, net.ErrClosed) {
		t.Fatal(err)
	}
	listen(t, h, ":7373")
}

func TestDial(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := New()
		n.SetLatency(20 * time.Millisecond)
		l := listen(t, n.Host("b"), ":80")
		start := time.Now()
		for _, address := range []string{"b:81", "c:80", ":80"} {
			_, err := n.Host("a").Dial(t.Context(), "tcp", address)
			var op *net.OpError
			if !errors.As(err, &op) || !errors.Is(err, syscall.ECONNREFUSED) {
				t.Fatalf("%s: %v", address, err)
			}
		}
		c, err := n.Host("a").Dial(t.Context(), "tcp", "b:80")
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if d := time.Since(start); d != 4*40*time.Millisecond {
			t.Fatalf("four dials took %v", d)
		}
		s, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		got := []net.Addr{c.LocalAddr(), c.RemoteAddr(), s.RemoteAddr(), s.LocalAddr()}
		if diff := cmp.Diff([]net.Addr{addr("a:32768"), addr("b:80"), addr("a:32768"), addr("b:80")}, got); diff != "" {
			t.Fatal(diff)
		}
		self, err := n.Host("b").Dial(t.Context(), "tcp", "127.0.0.1:80")
		if err != nil {
			t.Fatal(err)
		}
		self.Close()
	})
}

func TestDialOverCutPath(t *testing.T) {
	for _, way := range []path{{"a", "b"}, {"b", "a"}} {
		t.Run(way.from+" to "+way.to, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := New()
				l := listen(t, n.Host("b"), ":80")
				n.Block(way.from, way.to)
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				_, err := n.Host("a").Dial(ctx, "tcp", "b:80")
				if e, ok := errors.AsType[net.Error](err); !ok || !e.Timeout() || !errors.Is(err, context.DeadlineExceeded) {
					t.Fatal(err)
				}
				time.AfterFunc(time.Minute, func() { n.Unblock(way.from, way.to) })
				start := time.Now()
				c, err := n.Host("a").Dial(t.Context(), "tcp", "b:80")
				if err != nil {
					t.Fatal(err)
				}
				defer c.Close()
				if d := time.Since(start); d != time.Minute+2*defaultLatency {
					t.Fatalf("connected after %v", d)
				}
				if s, err := l.Accept(); err != nil {
					t.Fatal(err)
				} else {
					s.Close()
				}
				// A path that is cut while the packet is on its way.
				n.SetLatency(time.Second)
				time.AfterFunc(time.Second, func() { n.Isolate("b") })
				ctx, cancel = context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				if _, err = n.Host("a").Dial(ctx, "tcp", "b:80"); !errors.Is(err, context.DeadlineExceeded) {
					t.Fatal(err)
				}
			})
		})
	}
}

func TestCloseGivesEOFAfterTheBytes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := pair(t, New())
		write(t, a, "one")
		write(t, a, "two")
		if err := a.Close(); err != nil {
			t.Fatal(err)
		}
		expect(t, b, "onetwo")
		fails(t, b, io.EOF)
		fails(t, b, io.EOF)
		fails(t, a, net.ErrClosed)
		if err := a.Close(); !errors.Is(err, net.ErrClosed) {
			t.Fatal(err)
		}
		if _, err := a.Write([]byte("x")); !errors.Is(err, net.ErrClosed) {
			t.Fatal(err)
		}
		if err := a.SetDeadline(time.Now()); !errors.Is(err, net.ErrClosed) {
			t.Fatal(err)
		}
		// The first write goes out, and its answer is a reset.
		write(t, b, "x")
		time.Sleep(time.Second)
		if _, err := b.Write([]byte("x")); !errors.Is(err, syscall.ECONNRESET) {
			t.Fatal(err)
		}
		fails(t, b, syscall.ECONNRESET)
	})
}

func TestCloseWrite(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := pair(t, New())
		write(t, a, "question")
		if err := a.(interface{ CloseWrite() error }).CloseWrite(); err != nil {
			t.Fatal(err)
		}
		expect(t, b, "question")
		fails(t, b, io.EOF)
		write(t, b, "answer")
		expect(t, a, "answer")
		if _, err := a.Write([]byte("x")); !errors.Is(err, syscall.EPIPE) {
			t.Fatal(err)
		}
	})
}

func TestCloseEndsWaitingCalls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := New()
		l := listen(t, n.Host("b"), ":80")
		a, _ := pair(t, n)
		errs := make(chan error, 2)
		go func() { _, err := a.Read(make([]byte, 1)); errs <- err }()
		go func() { _, err := l.Accept(); errs <- err }()
		synctest.Wait()
		a.Close()
		l.Close()
		for range 2 {
			if err := <-errs; !errors.Is(err, net.ErrClosed) {
				t.Fatal(err)
			}
		}
	})
}

func TestListenerCloseResetsWhatIsNotAccepted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := New()
		l := listen(t, n.Host("b"), ":80")
		c, err := n.Host("a").Dial(t.Context(), "tcp", "b:80")
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		l.Close()
		fails(t, c, syscall.ECONNRESET)
	})
}

func TestCrash(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := New()
		l := listen(t, n.Host("b"), ":80")
		a, b := pair(t, n)
		write(t, b, "last words")
		n.Host("b").Crash()
		expect(t, a, "last words")
		fails(t, a, syscall.ECONNRESET)
		fails(t, a, syscall.ECONNRESET)
		if _, err := a.Write([]byte("x")); !errors.Is(err, syscall.ECONNRESET) {
			t.Fatal(err)
		}
		fails(t, b, net.ErrClosed)
		if _, err := l.Accept(); !errors.Is(err, net.ErrClosed) {
			t.Fatal(err)
		}
		if _, err := n.Host("a").Dial(t.Context(), "tcp", "b:80"); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Fatal(err)
		}
		listen(t, n.Host("b"), ":80")
		c, err := n.Host("b").Dial(t.Context(), "tcp", "b:80")
		if err != nil {
			t.Fatal(err)
		}
		c.Close()
	})
}

func TestCrashEndsDial(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := New()
		n.Isolate("a")
		time.AfterFunc(time.Second, n.Host("a").Crash)
		if _, err := n.Host("a").Dial(t.Context(), "tcp", "b:80"); !errors.Is(err, syscall.ECONNABORTED) {
			t.Fatal(err)
		}
	})
}

func TestCrashBehindPartition(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := New()
		a, b := pair(t, n)
		write(t, b, "sent before")
		time.Sleep(time.Second)
		n.Isolate("b")
		write(t, b, ", sent after")
		write(t, a, "x")
		n.Host("b").Crash()
		expect(t, a, "sent before")
		silent(t, a)
		write(t, a, "y") // a does not know yet
		n.Heal()
		expect(t, a, ", sent after")
		fails(t, a, syscall.ECONNRESET)
	})
}

func TestCloseBehindPartition(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := New()
		a, b := pair(t, n)
		n.Block("a", "b")
		write(t, a, "x")
		b.Close()
		fails(t, a, io.EOF)
		write(t, a, "y")
		time.Sleep(time.Hour)
		write(t, a, "z")
		n.Heal()
		time.Sleep(time.Second)
		if _, err := a.Write([]byte("x")); !errors.Is(err, syscall.ECONNRESET) {
			t.Fatal(err)
		}
	})
}

func TestBlockOneWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := New()
		a, b := pair(t, n)
		n.Block("a", "b")
		write(t, a, "forth")
		write(t, b, "back")
		expect(t, a, "back")
		silent(t, b)
		n.Unblock("a", "b")
		expect(t, b, "forth")
	})
}

func TestCutKeepsOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := New()
		n.SetLatency(time.Second)
		a, b := pair(t, n)
		start := time.Now()
		write(t, a, "1") // arrives before the cut, and is read after it
		time.Sleep(1500 * time.Millisecond)
		write(t, a, "2") // is on its way when the path is cut
		time.Sleep(500 * time.Millisecond)
		n.Block("a", "b")
		write(t, a, "3")
		expect(t, b, "1")
		silent(t, b)
		n.Heal()
		n.SetLatency(time.Millisecond)
		write(t, a, "4") // does not overtake
		expect(t, b, "234")
		if d := time.Since(start); d != 2*time.Second+time.Hour+time.Second {
			t.Fatalf("all had arrived after %v", d)
		}
	})
}

func TestResetDoesNotOvertake(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := New()
		a, b := pair(t, n)
		n.SetLatency(time.Minute)
		write(t, a, "x")
		n.SetLatency(0)
		n.Host("a").Crash()
		time.Sleep(time.Second)
		write(t, b, "y")
		expect(t, b, "x")
		fails(t, b, syscall.ECONNRESET)
	})
}

func TestPartition(t *testing.T) {
	n := New()
	names := []string{"a", "b", "c", "d", "e"}
	reach := func() (m []string) {
		n.mu.Lock()
		defer n.mu.Unlock()
		for _, from := range names {
			line := from + ":"
			for _, to := range names {
				if !n.cut(from, to) {
					line += to
				}
			}
			m = append(m, line)
		}
		return m
	}
	all := []string{"a:abcde", "b:abcde", "c:abcde", "d:abcde", "e:abcde"}
	for _, step := range []struct {
		name string
		do   func()
		want []string
	}{
		{"nothing", func() {}, all},
		{"partition", func() { n.Partition([]string{"a", "b"}, []string{"c", "d"}) }, []string{"a:abe", "b:abe", "c:cde", "d:cde", "e:abcde"}},
		{"another partition", func() { n.Partition([]string{"a"}, []string{"b", "c", "d", "e"}) }, []string{"a:a", "b:bcde", "c:bcde", "d:bcde", "e:bcde"}},
		{"heal", n.Heal, all},
		{"isolate", func() { n.Isolate("c") }, []string{"a:abde", "b:abde", "c:c", "d:abde", "e:abde"}},
		{"block", func() { n.Block("a", "b"); n.Block("a", "a") }, []string{"a:de", "b:abde", "c:c", "d:abde", "e:abde"}},
		{"unblock", func() { n.Unblock("a", "b"); n.Unblock("a", "a"); n.Unblock("a", "c") }, []string{"a:abde", "b:abde", "c:c", "d:abde", "e:abde"}},
		{"heal all", n.Heal, all},
	} {
		step.do()
		if diff := cmp.Diff(step.want, reach()); diff != "" {
			t.Fatalf("%s: %s", step.name, diff)
		}
	}
}

func TestLatency(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, d := range []time.Duration{0, defaultLatency, time.Second} {
			n := New()
			n.SetLatency(d)
			a, b := pair(t, n)
			start := time.Now()
			write(t, a, "x")
			if time.Since(start) != 0 {
				t.Fatal("Write takes time")
			}
			expect(t, b, "x")
			if got := time.Since(start); got != d {
				t.Fatalf("one way took %v, want %v", got, d)
			}
		}
	})
}

func TestDeadlines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := pair(t, New())
		timedOut := func(err error) {
			t.Helper()
			if e, ok := errors.AsType[net.Error](err); !ok || !e.Timeout() || !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Fatalf("%v is no timeout", err)
			}
		}
		read := func() error { _, err := a.Read(make([]byte, 1)); return err }
		start := time.Now()

		a.SetReadDeadline(start.Add(time.Second))
		timedOut(read())
		if d := time.Since(start); d != time.Second {
			t.Fatalf("after %v", d)
		}
		write(t, b, "x")
		time.Sleep(time.Second)
		timedOut(read()) // as with a socket, even with bytes to read
		a.SetReadDeadline(time.Time{})
		if err := read(); err != nil {
			t.Fatal(err)
		}
		// A deadline that is set, or set earlier, while Read waits.
		time.AfterFunc(time.Second, func() { a.SetDeadline(time.Now().Add(time.Hour)) })
		time.AfterFunc(2*time.Second, func() { a.SetReadDeadline(time.Now()) })
		start = time.Now()
		timedOut(read())
		if d := time.Since(start); d != 2*time.Second {
			t.Fatalf("after %v", d)
		}
		write(t, a, "x")
		a.SetWriteDeadline(time.Now())
		_, err := a.Write([]byte("x"))
		timedOut(err)
	})
}

func TestManyWritersAndReaders(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := New()
		a, b := pair(t, n)
		const writers, each = 8, 1000
		var wg sync.WaitGroup
		defer wg.Wait()
		for w := range writers {
			wg.Go(func() {
				for i := range each {
					fmt.Fprintf(a, "%d:%04d ", w, i)
					if i%100 == 0 {
						time.Sleep(time.Millisecond)
					}
				}
			})
		}
		wg.Go(func() {
			for range 20 {
				time.Sleep(time.Millisecond)
				n.Isolate("a")
				time.Sleep(time.Millisecond)
				n.Heal()
			}
		})
		var next [writers]int
		for range writers * each {
			var w, i int
			if _, err := fmt.Fscanf(io.LimitReader(b, 7), "%d:%d", &w, &i); err != nil {
				t.Fatal(err)
			}
			if i != next[w] {
				t.Fatalf("%d of writer %d, want %d", i, w, next[w])
			}
			next[w]++
		}
	})
}

func TestNothingIsKeptOfClosedConnections(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := New()
		for _, first := range []string{"a", "b"} {
			a, b := pair(t, n)
			if first == "a" {
				a, b = b, a
			}
			a.Close()
			write(t, b, "x")
			b.Close()
		}
		pair(t, n)
		n.Host("a").Crash()
		n.Host("b").Crash()
		if len(n.links) != 0 {
			t.Fatalf("%d connections are left", len(n.links))
		}
	})
}

func TestRealTime(t *testing.T) {
	n := New()
	a, b := pair(t, n)
	n.Block("a", "b")
	write(t, a, "x")
	write(t, b, "y")
	expect(t, a, "y")
	n.Heal()
	expect(t, b, "x")
	a.Close()
	fails(t, b, io.EOF)
	if _, err := n.Host("a").Dial(t.Context(), "tcp", "b:1"); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Fatal(err)
	}
}
