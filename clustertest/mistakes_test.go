package clustertest_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caddyserver/certmagic"

	"github.com/flotilla-ha/flotilla"
	"github.com/flotilla-ha/flotilla/clustertest"
	"github.com/flotilla-ha/flotilla/internal/synctest"
)

// failing is a test that is expected to fail.
type failing struct {
	testing.TB
	failed chan struct{} // closed when it has

	mu      sync.Mutex
	said    []string
	cleanup []func()
}

func (f *failing) fail(text string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.said = append(f.said, text); len(f.said) == 1 {
		close(f.failed)
	}
}

// await waits until the test has failed, or for a minute.
func (f *failing) await() {
	select {
	case <-f.failed:
	case <-time.After(time.Minute):
	}
}

func (f *failing) Errorf(format string, args ...any) { f.fail(fmt.Sprintf(format, args...)) }

func (f *failing) Fatal(args ...any) {
	f.fail(fmt.Sprint(args...))
	runtime.Goexit()
}

func (f *failing) Fatalf(format string, args ...any) {
	f.fail(fmt.Sprintf(format, args...))
	runtime.Goexit()
}

func (f *failing) Cleanup(c func()) { f.cleanup = append(f.cleanup, c) }

// texts returns what the test says when it runs f, and then its clean-up.
func (f *failing) texts(run func(testing.TB)) string {
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		defer func() {
			for i := range f.cleanup {
				f.cleanup[len(f.cleanup)-1-i]()
			}
		}()
		run(f)
	}()
	<-ended
	f.mu.Lock()
	defer f.mu.Unlock()
	return strings.Join(f.said, "\n")
}

// What cannot work fails at once, and says why and what to do.
func TestMistakes(t *testing.T) {
	skipShort(t)
	synctest.Parallel(t)
	change := func(f func(*flotilla.Config)) func(testing.TB) {
		return func(t testing.TB) { clustertest.New(t, 1, func(_ int, cfg *flotilla.Config) { f(cfg) }) }
	}
	program := func(run func(context.Context, flotilla.Config) error) func(testing.TB) {
		return func(t testing.TB) {
			clustertest.Run(t, 1, run)
			t.(*failing).await()
		}
	}
	serves := func(f func(*flotilla.Config)) func(testing.TB) {
		return func(t testing.TB) {
			c := clustertest.New(t, 1, func(_ int, cfg *flotilla.Config) { f(cfg) })
			c.Serve(namesItself)
			t.(*failing).await()
		}
	}
	for name, tc := range map[string]struct {
		run  func(testing.TB)
		want string
	}{
		"no PeerListen": {change(func(c *flotilla.Config) { c.PeerListen = nil }), "Config.PeerListen of n0 is nil: the node would use real sockets"},
		"no PeerDial":   {change(func(c *flotilla.Config) { c.PeerDial = nil }), "Config.PeerDial of n0 is nil"},
		"no Listen":     {change(func(c *flotilla.Config) { c.Listen = nil }), "Config.Listen of n0 is nil"},
		"no Listen in a program": {program(func(ctx context.Context, cfg flotilla.Config) error {
			cfg.Listen = nil
			return flotilla.Serve(ctx, cfg, http.NotFoundHandler(), "api.test")
		}), "Config.Listen of n0 is nil"},
		"loopback":           {func(t testing.TB) { clustertest.Start(t, clustertest.Options{Nodes: 1, Loopback: true}) }, "call Start outside of testing/synctest"},
		"a public authority": {serves(func(c *flotilla.Config) { c.TLS.CA = certmagic.LetsEncryptStagingCA }), "n0 wants a certificate of " + certmagic.LetsEncryptStagingCA},
		"the default authority": {serves(func(c *flotilla.Config) {
			c.TLS.Configure = func(*certmagic.Config, *certmagic.ACMEIssuer) {}
		}), "n0 wants a certificate of " + certmagic.LetsEncryptProductionCA},
		"an authority on loopback": {serves(func(c *flotilla.Config) { c.TLS.CA = "https://127.0.0.1:14000/dir" }), "the virtual time of this bubble stands still"},
		"a program that ends": {program(func(ctx context.Context, cfg flotilla.Config) error {
			n, err := flotilla.Open(ctx, cfg)
			if err != nil {
				return err
			}
			err = n.Ready(ctx)
			return errors.Join(err, n.Close(), errors.New("no more work"))
		}), "n0 serves no longer, and nobody has stopped it: no more work"},
		"a program that opens no node": {program(func(context.Context, flotilla.Config) error {
			return errors.New("no configuration")
		}), "has ended before it has opened a node: no configuration"},
		"a program that does not end": {func(t testing.TB) {
			over := make(chan struct{})
			c := clustertest.Run(t, 1, func(ctx context.Context, cfg flotilla.Config) error {
				n, err := flotilla.Open(ctx, cfg)
				<-over
				return errors.Join(err, n.Close())
			})
			c.Stop(0)
			close(over)
		}, "the program of n0 does not end within 1m0s"},
		"a program that keeps its context": {program(func(ctx context.Context, cfg flotilla.Config) error {
			n, err := flotilla.Open(context.Background(), cfg)
			if err != nil {
				return err
			}
			<-ctx.Done()
			return n.Close()
		}), "must give its context to flotilla.Open"},
		"Serve with programs": {func(t testing.TB) { clustertest.Run(t, 1, run).Serve(namesItself) }, "serve themselves"},
		"Serve twice": {func(t testing.TB) {
			c := clustertest.New(t, 1, nil)
			c.Serve(namesItself)
			c.Serve(namesItself)
		}, "Serve was called before"},
		"requests that fail": {func(t testing.TB) {
			c := clustertest.New(t, 1, nil)
			c.Serve(func(int, *flotilla.Node) http.Handler { return http.NotFoundHandler() })
			c.Settle()
			stop := c.Load(c.Client(), "https://api.test/")
			synctest.Wait() // the requests are under way
			stop()
		}, "the status is 404 Not Found"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				began := time.Now()
				f := &failing{TB: t, failed: make(chan struct{})}
				if got := f.texts(tc.run); !strings.Contains(got, tc.want) {
					t.Errorf("the test says %q, want %q in it", got, tc.want)
				}
				if took := time.Since(began); took > 5*time.Minute {
					t.Errorf("it took %v", took)
				}
			})
		})
	}
}
