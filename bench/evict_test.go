package bench

import (
	"fmt"
	"testing"
	"time"

	"github.com/flotilla-ha/flotilla"
	"github.com/flotilla-ha/flotilla/internal/remote"
	"github.com/flotilla-ha/flotilla/internal/seal"
)

// BenchmarkEvict evicts a follower that runs, from a cluster with 10,000 records of 4 KiB. Each
// round is a cluster of its own. It measures from the first request until the former secret is
// refused, and until nothing on the disks of the others opens with what the node knew. There are no
// certificates: an authority would decide how long they take.
func BenchmarkEvict(b *testing.B) {
	const records = 10_000
	var refused, sealed []time.Duration
	for range *rounds {
		c := newCluster(b)
		value := make([]byte, 4<<10)
		for i := range records {
			if err := c.nodes[0].Storage().Store(b.Context(), fmt.Sprint("bench/evict/", i/100, "/", i), value); err != nil {
				b.Fatal(err)
			}
		}
		r, s := evict(b, c)
		refused, sealed = append(refused, r), append(sealed, s)
		for _, n := range c.nodes {
			n.Close()
		}
	}
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(ms(median(refused)), "refused-ms")
	b.ReportMetric(ms(median(sealed)), "sealed-ms")
}

// evict evicts a follower, and returns how long its secret was good for, and how long all took.
func evict(b *testing.B, c *cluster) (refused, sealed time.Duration) {
	out, next := c.follower(b), flotilla.NewSecret()
	for i, n := range c.nodes {
		if n != out {
			c.give(b, i, c.secret, next)
		}
	}
	var secrets []seal.Secret
	q := remote.EvictRequest{Node: out.Status().ID}
	for _, s := range []flotilla.Secret{c.secret, next} {
		raw, err := seal.ParseSecret(s.Encode())
		if err != nil {
			b.Fatal(err)
		}
		secrets, q.Have = append(secrets, raw), append(q.Have, raw.ID())
	}
	client, err := remote.Open(remote.Config{Secrets: secrets, Peers: flotilla.Static(c.addrs...)})
	if err != nil {
		b.Fatal(err)
	}
	defer client.Close()
	began := time.Now()
	for time.Since(began) < 5*time.Minute {
		p, err := client.Evict(b.Context(), q, q.Node)
		if err == nil && p.Refused {
			b.Fatal(p.Doing)
		}
		if err == nil && p.Step > 2 && refused == 0 {
			refused = time.Since(began)
		}
		if err == nil && p.Done {
			return refused, time.Since(began)
		}
		time.Sleep(50 * time.Millisecond)
	}
	b.Fatal("the eviction has not ended")
	return 0, 0
}
