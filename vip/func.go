package vip

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Func is a Binder for addresses that are not this machine's kernel's to move, such as those that a cloud assigns to an interface: functions that do
// it. It should be used where whoever is told to move an address can be shown the fence, and refuses one that is lower than the
// highest it has seen: then a call of a former owner that comes late does no harm.
type Func struct {
	// Bind brings the addresses here. It may take its time; ctx ends when the role is lost.
	Bind func(ctx context.Context, m Move) error

	// Unbind takes them away, if that needs saying; nil: it does not, because the next owner's Bind does. The lease may be over by then. It is given ten
	// seconds.
	Unbind func(ctx context.Context, m Move) error

	// Check says why Bind would fail now, without changing anything; nil: it cannot be told. A node whose Bind has failed claims the
	// addresses as before when Check finds nothing wrong any more. Without Check it waits until nobody else wants them, or they are moved to
	// it by hand: others are not to lose their clients to a node that cannot serve them.
	Check func(ctx context.Context, m Move) error

	// Linger is as in hold.Role, for what goes on here when the program stands still.
	Linger time.Duration
}

// Move is what a Func is called for.
type Move struct {
	Name  string // of the role
	Addrs []netip.Prefix
	Fence uint64    // see hold.Tenure
	Until time.Time // the role is held at least until then, as known now
}

// unbindTime bounds Func.Unbind.
const unbindTime = 10 * time.Second

// Attach implements Binder.
func (f Func) Attach(_ context.Context, u Unit) (Place, error) {
	if f.Bind == nil {
		return nil, errors.New("Func.Bind is nil: nothing would bring the address here")
	}
	return &funcPlace{f: f, move: Move{Name: u.Name, Addrs: u.Addrs}}, nil
}

// funcPlace is the Place of a Func.
type funcPlace struct {
	f Func

	mu    sync.Mutex
	move  Move // of the last Bind
	bound bool
}

// Linger implements Place.
func (p *funcPlace) Linger() time.Duration { return p.f.Linger }

// Usable implements Place: it always is.
func (p *funcPlace) Usable() error { return nil }

// Changed implements Place.
func (p *funcPlace) Changed() <-chan struct{} { return nil }

// Bind implements Place.
func (p *funcPlace) Bind(ctx context.Context, g Grant) error {
	p.mu.Lock()
	p.move.Fence, p.move.Until, p.bound = g.Fence, g.Until, true
	move := p.move
	p.mu.Unlock()
	return p.f.Bind(ctx, move)
}

// Check implements Checker.
func (p *funcPlace) Check(ctx context.Context) error {
	if p.f.Check == nil {
		return errors.ErrUnsupported
	}
	p.mu.Lock()
	move := p.move
	p.mu.Unlock()
	return p.f.Check(ctx, move)
}

// Extend implements Place.
func (p *funcPlace) Extend(time.Time) (time.Duration, error) { return time.Hour, nil }

// Announce implements Place.
func (p *funcPlace) Announce() error { return nil }

// Mend implements Place.
func (p *funcPlace) Mend(context.Context) (bool, error) { return false, nil }

// Quiesce implements Place.
func (p *funcPlace) Quiesce(context.Context) error { return nil }

// Release implements Place.
func (p *funcPlace) Release(context.Context) error { return p.Unbind() }

// Unbind implements Place.
func (p *funcPlace) Unbind() error {
	p.mu.Lock()
	bound, move := p.bound, p.move
	p.bound = false
	p.mu.Unlock()
	if !bound || p.f.Unbind == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), unbindTime)
	defer cancel()
	return p.f.Unbind(ctx, move)
}

// Close implements Place.
func (p *funcPlace) Close() error { return p.Unbind() }

// Exec is a Func that runs a program: with the arguments given, then "bind" or "unbind", then the addresses as in "192.0.2.100/24". Its environment
// has VIP_NAME and VIP_FENCE in addition, of the role and its tenure. A program that ends with an error has what it wrote to its standard error in the
// error. It is killed when the role is lost.
func Exec(path string, args ...string) Func {
	run := func(ctx context.Context, action string, m Move) error {
		argv := append(append([]string(nil), args...), action)
		for _, a := range m.Addrs {
			argv = append(argv, a.String())
		}
		cmd := exec.CommandContext(ctx, path, argv...)
		cmd.Env = append(cmd.Environ(), "VIP_NAME="+m.Name, "VIP_FENCE="+strconv.FormatUint(m.Fence, 10))
		cmd.WaitDelay = time.Second
		var said bytes.Buffer
		cmd.Stderr = &head{&said}
		if err := cmd.Run(); err != nil {
			return fmt.Errorf("%s %s: %w: %s", path, action, err, strings.TrimSpace(strings.ToValidUTF8(said.String(), "")))
		}
		return nil
	}
	return Func{
		Bind:   func(ctx context.Context, m Move) error { return run(ctx, "bind", m) },
		Unbind: func(ctx context.Context, m Move) error { return run(ctx, "unbind", m) },
	}
}

// head keeps the first of what a program says, as much as an error should hold.
type head struct{ b *bytes.Buffer }

// Write implements io.Writer.
func (t *head) Write(p []byte) (int, error) {
	if room := 1<<10 - t.b.Len(); room > 0 {
		t.b.Write(p[:min(room, len(p))])
	}
	return len(p), nil
}
