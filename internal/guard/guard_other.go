//go:build !linux

package guard

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"runtime"
	"time"
)

// Guard is the program's side of its guard. There is no guard on this system.
type Guard struct{}

// Start returns an error: a guard needs Linux.
func Start(context.Context, Duty, *slog.Logger) (*Guard, error) {
	return nil, fmt.Errorf("a guard process needs pidfds, robust futexes and sealed memory, which Linux has and %s has not", runtime.GOOS)
}

// IsGuard returns false.
func IsGuard(Duty) bool { return false }

// Main says that this process is not a guard and exits.
func Main(Hooks) {
	fmt.Fprintln(os.Stderr, "flotilla guard: this process was not started as a guard")
	os.Exit(2)
}

// widen does nothing.
func (g *Guard) widen() error { return nil }

// Await returns ErrDown.
func (g *Guard) Await(context.Context) error { return ErrDown }

// Watch returns ErrDown.
func (g *Guard) Watch(context.Context, []Addr) error { return ErrDown }

// Table returns ErrDown.
func (g *Guard) Table(context.Context, string) error { return ErrDown }

// DeathNotice returns ErrDown.
func (g *Guard) DeathNotice(context.Context, any, []byte) error { return ErrDown }

// Extend does nothing.
func (g *Guard) Extend(time.Time) {}

// Alive returns false.
func (g *Guard) Alive() bool { return false }

// Removals returns 0.
func (g *Guard) Removals() uint64 { return 0 }

// Changed returns a channel that is never closed.
func (g *Guard) Changed() <-chan struct{} { return nil }

// PID returns 0.
func (g *Guard) PID() int { return 0 }

// Close does nothing.
func (g *Guard) Close() error { return nil }
