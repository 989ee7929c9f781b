//go:build unix

package bench

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/flotilla-ha/flotilla"
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

func (l *growthNode) fill(ctx context.Context, n, size int) error {
	var (
		wg   sync.WaitGroup
		mu   sync.Mutex
		fail error
	)
	const writers = 64
	for w := range writers {
		wg.Go(func() {
			value := []byte(strings.Repeat("x", size))
			for i := w; i < n; i += writers {
				if err := l.node.Storage().Store(ctx, fmt.Sprintf("fill/%d/%d", i%1000, i), value); err != nil {
					mu.Lock()
					fail = err
					mu.Unlock()
					return
				}
			}
		})
	}
	wg.Wait()
	return fail
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
