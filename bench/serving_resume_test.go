//go:build unix

package bench

import (
	"crypto/tls"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// BenchmarkServingResumption measures how many handshakes resume a session, in percent, when HAProxy hands the connections of each
// client to three nodes in turn: of flotilla, and of net/http as it comes, where each process makes its own ticket keys. Then one
// process of each is started again, and the same clients go on. A client's first connection, which has nothing to resume, does not count.
func BenchmarkServingResumption(b *testing.B) {
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		b.Run(strings.ReplaceAll(tls.VersionName(version), " ", ""), func(b *testing.B) {
			g := newGiven(b)
			all := newSystems(b, g, passing)
			visits := make([]func() float64, len(all))
			for i, s := range all {
				visits[i] = newReturning(b, g, s.lb, version)
			}
			b.ResetTimer()
			report := func(suffix string) {
				shares := make([][]float64, len(all))
				for range *rounds {
					for i := range all {
						shares[i] = append(shares[i], visits[i]())
					}
				}
				for i, s := range all {
					b.ReportMetric(median(shares[i]), s.name+suffix)
				}
			}
			b.ReportMetric(0, "ns/op")
			report("-%")
			for _, s := range all {
				if s.nodes[0].restart(b, s.name == "flotilla"); b.Failed() {
					return
				}
				s.nodes[0].await(b, g, false)
			}
			time.Sleep(untilUp)
			report("-restarted-%")
		})
	}
}

// newReturning makes clients with a session cache each. The function that it returns has each of them make a number of
// connections through l, one after another, and returns the share that resumed a session, in percent.
func newReturning(b *testing.B, g given, l balancer, version uint16) func() float64 {
	const connections = 20
	configs := make([]*tls.Config, servingClients)
	for i := range configs {
		config, err := g.client()
		if err != nil {
			b.Fatal(err)
		}
		config.MinVersion, config.MaxVersion = version, version
		config.CurvePreferences = append(config.CurvePreferences, tls.CurveP256) // for the certificate, in TLS 1.2
		config.ClientSessionCache = tls.NewLRUClientSessionCache(1)
		if _, err := visit(b.Context(), l.dial, config); err != nil {
			b.Fatal(err)
		}
		configs[i] = config
	}
	return func() float64 {
		var (
			wg    sync.WaitGroup
			count atomic.Int64
			fails = make(chan error, len(configs))
		)
		for _, config := range configs {
			wg.Go(func() {
				for range connections {
					resumed, err := visit(b.Context(), l.dial, config)
					if err != nil {
						fails <- err
						return
					}
					if resumed {
						count.Add(1)
					}
				}
			})
		}
		wg.Wait()
		select {
		case err := <-fails:
			b.Fatal(err)
		default:
		}
		return 100 * float64(count.Load()) / float64(connections*len(configs))
	}
}
