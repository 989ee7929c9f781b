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

// BenchmarkServingResumption measures the percentage of handshakes that resume a session, when
// HAProxy sends the connections of each client to three nodes in turn. It does so for flotilla, and
// for plain net/http, where each process makes its own ticket keys. Then it restarts one process of
// each, and the same clients go on. The first connection of a client does not count, because it has
// nothing to resume.
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

// newReturning makes clients with a session cache each. The function that it returns lets each
// client make a number of connections through l, one after another. It returns the percentage that
// resumed a session.
func newReturning(b *testing.B, g given, l balancer, version uint16) func() float64 {
	const connections = 20
	configs := make([]*tls.Config, servingClients)
	for i := range configs {
		config, err := g.client()
		if err != nil {
			b.Fatal(err)
		}
		config.MinVersion, config.MaxVersion = version, version
		// TLS 1.2 needs it for the certificate.
		config.CurvePreferences = append(config.CurvePreferences, tls.CurveP256)
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
