package main

import (
	"context"
	"crypto/x509"
	"fmt"
	"sync"
	"time"
)

const (
	watchEvery     = 100 * time.Millisecond
	watchTimeout   = 200 * time.Millisecond // of a request of watch
	measureTimeout = 500 * time.Millisecond // of a request of measure
)

// watch prints a line when another node answers at an address than before.
func watch(ctx context.Context, name string, roots *x509.CertPool) error {
	addrs, err := lookup(ctx, name)
	if err != nil {
		return err
	}
	start := time.Now()
	var mu sync.Mutex
	var all sync.WaitGroup
	for _, addr := range addrs {
		all.Go(func() {
			owner, silent := "", start
			c, url := httpsAt(name, addr, roots, watchTimeout)
			tick := time.NewTicker(watchEvery)
			defer tick.Stop()
			for {
				asked := time.Now()
				a, err := ask(ctx, c, url)
				if ctx.Err() != nil {
					return
				}
				if err == nil {
					if a.ServedBy != owner {
						mu.Lock()
						fmt.Printf("%6.1f s  %-22s %s", time.Since(start).Seconds(), addr, a.ServedBy)
						if owner != "" {
							fmt.Printf(", before that %s", owner)
							if silent != (time.Time{}) {
								fmt.Printf("; no answer for %d ms", time.Since(silent).Milliseconds())
							}
						}
						fmt.Println()
						mu.Unlock()
					}
					owner, silent = a.ServedBy, time.Time{}
				} else if silent == (time.Time{}) {
					silent = asked
				}
				select {
				case <-tick.C:
				case <-ctx.Done():
					return
				}
			}
		})
	}
	all.Wait()
	return nil
}
