//go:build unix

package bench

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/flotilla-ha/flotilla"
	"github.com/flotilla-ha/flotilla/kv"
)

// growthNode is what the benchmarks Growth… have a node do. One goroutine uses it.
type growthNode struct {
	node   *flotilla.Node
	wanted int            // roles
	held   chan time.Time // gets when each was held
}

// do does what a line says, and returns the answer.
func (l *growthNode) do(ctx context.Context, word, rest string) (string, error) {
	var n, size int
	switch word {
	case "fill": // n records of a size
		if _, err := fmt.Sscan(rest, &n, &size); err != nil {
			return "", err
		}
		return "ok", l.fill(ctx, n, size)
	case "names": // n names with a certificate
		if _, err := fmt.Sscan(rest, &n); err != nil {
			return "", err
		}
		return "ok", l.names(ctx, n)
	case "entries": // n entries of a bucket, which expire in a day
		if _, err := fmt.Sscan(rest, &n); err != nil {
			return "", err
		}
		return "ok", l.entries(ctx, n)
	case "leave": // the node shuts down, and the process goes on
		return "ok", l.node.Shutdown(ctx)
	case "write": // n times, one after another
		if _, err := fmt.Sscan(rest, &n); err != nil {
			return "", err
		}
		return l.write(ctx, n)
	case "want": // n roles, until the process ends
		if _, err := fmt.Sscan(rest, &n); err != nil {
			return "", err
		}
		l.want(ctx, n)
		return "ok", nil
	case "held": // all wanted roles: says when the first and the last were
		var got [2]time.Time
		for i := range l.wanted {
			got[1] = <-l.held
			if i == 0 {
				got[0] = got[1]
			}
		}
		line, err := json.Marshal(got)
		return string(line), err
	}
	return "", fmt.Errorf("nobody knows the word %q", word)
}

// fill stores n records.
func (l *growthNode) fill(ctx context.Context, n, size int) error {
	value := []byte(strings.Repeat("x", size))
	return each(n, func(i int) error {
		return l.node.Storage().Store(ctx, fmt.Sprintf("fill/%d/%d", i%1000, i), value)
	})
}

// names stores what certmagic stores for n names: for each a chain of two certificates, a key for
// ECDSA and a description. The sizes are those of Let's Encrypt.
func (l *growthNode) names(ctx context.Context, n int) error {
	parts := map[string][]byte{".crt": make([]byte, 2900), ".key": make([]byte, 227), ".json": make([]byte, 1300)}
	return each(n, func(i int) error {
		name := fmt.Sprintf("name%d.example.com", i)
		for suffix, content := range parts {
			key := fmt.Sprintf("certificates/acme-v02.api.letsencrypt.org-directory/%s/%s%s", name, name, suffix)
			if err := l.node.Storage().Store(ctx, key, content); err != nil {
				return err
			}
		}
		return nil
	})
}

// entries stores n entries of 100 bytes with a TTL of a day.
func (l *growthNode) entries(ctx context.Context, n int) error {
	value := make([]byte, 100)
	return each((n+kv.MaxOps-1)/kv.MaxOps, func(i int) error {
		var ops []kv.Op
		for k := i * kv.MaxOps; k < min(n, (i+1)*kv.MaxOps); k++ {
			ops = append(ops, kv.Put(fmt.Sprintf("session/%d", k), value, kv.Options{TTL: 24 * time.Hour}))
		}
		return l.node.KV("bench").Txn(ctx, nil, ops)
	})
}

// each calls f for the numbers below n, on 64 goroutines. It returns an error of f.
func each(n int, f func(i int) error) error {
	var g errgroup.Group
	const writers = 64
	for w := range writers {
		g.Go(func() error {
			for i := w; i < n; i += writers {
				if err := f(i); err != nil {
					return err
				}
			}
			return nil
		})
	}
	return g.Wait()
}

// write returns p50 and p99.
func (l *growthNode) write(ctx context.Context, n int) (string, error) {
	var took []time.Duration
	for i := range n {
		began := time.Now()
		if err := l.node.Storage().Store(ctx, fmt.Sprintf("write/%d", i%16), make([]byte, valueSize)); err != nil {
			return "", err
		}
		took = append(took, time.Since(began))
	}
	line, err := json.Marshal([]time.Duration{quantile(took, 0.5), quantile(took, 0.99)})
	return string(line), err
}

// want begins to hold n roles.
func (l *growthNode) want(ctx context.Context, n int) {
	l.wanted, l.held = n, make(chan time.Time, n)
	for i := range n {
		go l.node.Hold(ctx, flotilla.Role{Name: fmt.Sprintf("role%d", i)}, func(ctx context.Context, _ flotilla.Tenure) error {
			l.held <- time.Now()
			<-ctx.Done()
			return nil
		})
	}
}
