package vip

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/flotilla-ha/flotilla/hold"
	"github.com/flotilla-ha/flotilla/internal/synctest"
)

// once is a cluster that grants the role once, until end is closed.
type once struct {
	end   chan struct{}
	cause error
}

// grantedUntil is a tenure whose deadline does not move.
type grantedUntil struct{ until time.Time }

func (g grantedUntil) Fence() uint64            { return 7 }
func (g grantedUntil) Deadline() time.Time      { return g.until }
func (g grantedUntil) Renewed() <-chan struct{} { return nil }
func (g grantedUntil) DeathNotice() []byte      { return nil }

func (o *once) Hold(ctx context.Context, _ hold.Role, f func(context.Context, hold.Tenure) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	select {
	case <-o.end: // granted once
		<-ctx.Done()
		return ctx.Err()
	default:
	}
	held, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stop := make(chan struct{})
	defer close(stop)
	go func() {
		select {
		case <-o.end:
			cancel(o.cause)
		case <-stop:
		}
	}()
	return f(held, grantedUntil{time.Now().Add(time.Hour)})
}

func TestFunc(t *testing.T) {
	for name, cause := range map[string]error{"planned": hold.ErrYielded, "lost": errors.New("lost")} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var did list[string]
				note := func(format string, args ...any) error { did.add(fmt.Sprintf(format, args...)); return nil }
				var kinds []Kind
				cluster := &once{end: make(chan struct{}), cause: cause}
				end := start(t, cluster, Config{
					Addr: netip.MustParsePrefix("192.0.2.1/24"),
					Binder: Func{
						Bind:   func(_ context.Context, m Move) error { return note("bind %v %d", m.Addrs, m.Fence) },
						Unbind: func(_ context.Context, m Move) error { return note("unbind %v %d", m.Addrs, m.Fence) },
					},
					Drain:  func(_ context.Context, a netip.Addr) error { return note("drain %v", a) },
					Notify: func(e Event) { kinds = append(kinds, e.Kind) },
				})
				time.Sleep(time.Minute)
				close(cluster.end)
				time.Sleep(time.Minute)
				end()
				want, wantKinds := []string{"bind [192.0.2.1/24] 7", "drain 192.0.2.1", "drain 192.0.2.1", "unbind [192.0.2.1/24] 7"}, []Kind{Bound, Moved}
				if name == "lost" {
					want, wantKinds = []string{"bind [192.0.2.1/24] 7", "unbind [192.0.2.1/24] 7", "drain 192.0.2.1"}, []Kind{Bound, Lost}
				}
				if !slices.Equal(did.all, want) || !slices.Equal(kinds, wantKinds) {
					t.Errorf("%q, events %v; want %q, %v", did.all, kinds, want, wantKinds)
				}
			})
		})
	}
}

// A failure is reported, and tried again after one, two, four seconds and so on.
func TestFuncFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tries := 0
		var failed []error
		ctx, cancel := context.WithTimeout(t.Context(), 8*time.Second)
		defer cancel()
		err := Run(ctx, &once{end: make(chan struct{})}, Config{
			Addr:   netip.MustParsePrefix("192.0.2.1/24"),
			Binder: Func{Bind: func(context.Context, Move) error { tries++; return errors.New("the cloud says no") }},
			Notify: func(e Event) { failed = append(failed, e.Err) },
		})
		if err != nil || tries != 4 || len(failed) != 4 || !strings.Contains(failed[0].Error(), "the cloud says no") {
			t.Errorf("error %v, %d tries, events %v", err, tries, failed)
		}
	})
	if err := Run(t.Context(), nobody{}, Config{Addr: netip.MustParsePrefix("192.0.2.1/24"), Binder: Func{}}); err == nil || !strings.Contains(err.Error(), "Func.Bind is nil") {
		t.Errorf("a Func without Bind: %v", err)
	}
}

func TestExec(t *testing.T) {
	sh, err := exec.LookPath("sh")
	if err != nil {
		t.Skip("there is no sh on this system")
	}
	out := filepath.Join(t.TempDir(), "out")
	f := Exec(sh, "-c", `echo "$VIP_NAME $VIP_FENCE $*" >>"`+out+`"; if [ "$1" = unbind ]; then echo "no such address" >&2; exit 3; fi`, "script")
	m := Move{Name: "vip/192.0.2.1", Addrs: []netip.Prefix{netip.MustParsePrefix("192.0.2.1/24"), netip.MustParsePrefix("2001:db8::1/64")}, Fence: 12}
	if err := f.Bind(t.Context(), m); err != nil {
		t.Fatal(err)
	}
	if err := f.Unbind(t.Context(), m); err == nil || !strings.Contains(err.Error(), "unbind: exit status 3: no such address") {
		t.Errorf("unbind: %v", err)
	}
	said, err := os.ReadFile(out)
	const want = "vip/192.0.2.1 12 bind 192.0.2.1/24 2001:db8::1/64\nvip/192.0.2.1 12 unbind 192.0.2.1/24 2001:db8::1/64\n"
	if err != nil || string(said) != want {
		t.Errorf("the program was called with %q, %v; want %q", said, err, want)
	}
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(20*time.Millisecond, cancel)
	if err := Exec(sh, "-c", "exec sleep 60").Bind(ctx, m); err == nil || !strings.Contains(err.Error(), "signal: killed") {
		t.Errorf("a program goes on when the role is lost: %v", err)
	}
	if err := Exec(filepath.Join(t.TempDir(), "none")).Bind(t.Context(), m); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a program that is not there: %v", err)
	}
}

// moved is a cluster that wants the role back at once. Its lease ends a second later.
type moved struct{ granted bool }

func (m *moved) Hold(ctx context.Context, _ hold.Role, f func(context.Context, hold.Tenure) error) error {
	if m.granted {
		<-ctx.Done()
		return ctx.Err()
	}
	m.granted = true
	held, cancel := context.WithCancelCause(ctx)
	cancel(hold.ErrYielded)
	return f(held, grantedUntil{time.Now().Add(time.Second)})
}

// If the lease ends while Unbind runs, the wait for Unbind ends too, and Unbind is not called
// again.
func TestFuncSlowUnbind(t *testing.T) {
	if testing.Short() {
		t.Skip("a slow test: it runs without -short")
	}
	t.Parallel() // it waits
	ctx, cancel := context.WithCancel(t.Context())
	unbound := 0
	err := Run(ctx, new(moved), Config{
		Addr: netip.MustParsePrefix("192.0.2.1/24"),
		Binder: Func{
			Bind: func(context.Context, Move) error { return nil },
			Unbind: func(context.Context, Move) error {
				unbound++
				<-time.After(1200 * time.Millisecond)
				return nil
			},
		},
		Notify: func(e Event) {
			if e.Kind == Lost {
				cancel()
			}
		},
	})
	if err != nil || unbound != 1 {
		t.Errorf("error %v, taken away %d times, want once", err, unbound)
	}
}
