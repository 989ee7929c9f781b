package simnet

import (
	"fmt"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/flotilla-ha/flotilla/internal/synctest"
)

// took returns how long it takes until so many bytes that a writes are read by b.
func took(t *testing.T, a, b net.Conn, bytes int) time.Duration {
	t.Helper()
	start := time.Now()
	write(t, a, string(make([]byte, bytes)))
	if _, err := io.ReadFull(b, make([]byte, bytes)); err != nil {
		t.Fatal(err)
	}
	return time.Since(start)
}

func TestQuality(t *testing.T) {
	const latency = time.Millisecond
	for _, tt := range []struct {
		name       string
		q          Quality
		bytes      int
		there      time.Duration
		back, most time.Duration // most: that there is random
	}{
		{"none", Quality{}, 10, latency, latency, 0},
		{"a latency of its own", Quality{Latency: time.Second}, 10, time.Second, latency, 0},
		{"jitter", Quality{Jitter: time.Second}, 10, latency, latency, latency + time.Second},
		{"duplicates are dropped", Quality{Duplicate: 1}, 10, latency, latency, 0},
		{"bandwidth", Quality{Bandwidth: 1000}, 960, time.Second + latency, latency, 0},
		{"bandwidth of two segments", Quality{Bandwidth: 1000}, 1920, 2*time.Second + latency, latency, 0},
		{"duplicates use bandwidth", Quality{Bandwidth: 1000, Duplicate: 1}, 960, 2*time.Second + latency, latency, 0},
		{"all together", Quality{Latency: time.Second, Jitter: time.Second, Bandwidth: 1000, Duplicate: 1}, 960, 3 * time.Second, latency, 4 * time.Second},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := New()
				n.SetLatency(latency)
				a, b := pair(t, n)
				n.SetQuality("a", "b", tt.q)
				if diff := cmp.Diff(tt.q, n.Quality("a", "b")); diff != "" {
					t.Error(diff)
				}
				if d := took(t, a, b, tt.bytes); d < tt.there || d > max(tt.there, tt.most) {
					t.Errorf("there: %v, want %v, and %v at most", d, tt.there, max(tt.there, tt.most))
				}
				if d := took(t, b, a, tt.bytes); d != tt.back {
					t.Errorf("back: %v, want %v", d, tt.back)
				}
				n.Heal()
				if d := took(t, a, b, tt.bytes); d != latency {
					t.Errorf("after Heal: %v", d)
				}
			})
		})
	}
}

// All connections share the bandwidth of a path.
func TestBandwidthIsShared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := New()
		a, _ := pair(t, n)
		c, d := pair(t, n)
		n.SetQuality("a", "b", Quality{Bandwidth: 1000})
		write(t, a, string(make([]byte, 960)))
		if took := took(t, c, d, 960); took != 2*time.Second+defaultLatency {
			t.Errorf("the second of two took %v", took)
		}
	})
}

// A lost segment comes late, and what was sent behind it too. Nothing is lost or out of order.
func TestLoss(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := New()
		a, b := pair(t, n)
		n.SetQuality("a", "b", Quality{Loss: 0.2})
		const writes = 2000
		start := time.Now()
		var writer sync.WaitGroup
		defer writer.Wait()
		writer.Go(func() {
			for i := range writes {
				fmt.Fprintf(a, "%04d", i)
				time.Sleep(10 * time.Second)
			}
		})
		counts := map[time.Duration]int{}
		for i := range writes {
			expect(t, b, fmt.Sprintf("%04d", i))
			counts[time.Since(start)-time.Duration(i)*10*time.Second-defaultLatency]++
		}
		first := minResend + 2*defaultLatency
		for d, share := range map[time.Duration]float64{0: 0.8, first: 0.16, first + 2*first: 0.032} {
			if got := float64(counts[d]) / writes; got < share*0.7 || got > share*1.3 {
				t.Errorf("%v of all were late by %v, want about %v", got, d, share)
			}
		}
	})
}

// A lost packet of a dial is sent again after a second.
func TestDialWithLoss(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := New()
		listen(t, n.Host("b"), ":80")
		n.SetQuality("b", "a", Quality{Loss: 0.5})
		late := map[time.Duration]int{}
		for range 200 {
			start := time.Now()
			c, err := n.Host("a").Dial(t.Context(), "tcp", "b:80")
			if err != nil {
				t.Fatal(err)
			}
			c.Close()
			late[time.Since(start)-2*defaultLatency]++
		}
		if late[0] < 60 || late[dialAgain] < 30 || late[3*dialAgain] < 10 {
			t.Errorf("%v", late)
		}
	})
}

// The same seed draws the same.
func TestSeed(t *testing.T) {
	run := func(seed uint64) (all []time.Duration) {
		synctest.Test(t, func(t *testing.T) {
			n := New()
			n.Seed(seed)
			a, b := pair(t, n)
			n.SetQuality("a", "b", Quality{Loss: 0.3, Jitter: time.Second})
			for range 20 {
				all = append(all, took(t, a, b, 5000))
			}
		})
		return all
	}
	one := run(1)
	if diff := cmp.Diff(one, run(1)); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(one, run(2)); diff == "" {
		t.Error("another seed draws the same")
	}
}

// What is on its way when a path is cut and mended follows its quality again.
func TestQualityAfterCut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := New()
		a, b := pair(t, n)
		n.SetQuality("a", "b", Quality{Latency: time.Second})
		n.Block("a", "b")
		write(t, a, "x")
		silent(t, b)
		start := time.Now()
		n.Unblock("a", "b")
		expect(t, b, "x")
		if d := time.Since(start); d != time.Second {
			t.Errorf("it arrived %v after the path was mended", d)
		}
	})
}
