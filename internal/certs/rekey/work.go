package rekey

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/flotilla-ha/flotilla/internal/certs/backoff"
	"github.com/flotilla-ha/flotilla/internal/certs/devca"
)

const (
	atOnce       = 16              // orders under way, and other steps
	retryFirst   = 5 * time.Second // after the first failure; doubled with each
	retryLast    = 10 * time.Minute
	troubleEvery = 5 * time.Second // between writes of what fails
	maxTrouble   = 200             // lines that are kept
	maxText      = 1000            // bytes of an error in them
	stepTimeout  = 5 * time.Minute // for one step that is no order
)

// waiting is the error of a step that waits for something, and has not failed.
type waiting struct {
	why string // empty: it is not worth a line
	d   time.Duration
}

// Error implements error.
func (w *waiting) Error() string { return w.why }

// backOff returns the pause after so many failures.
func backOff(failures int) time.Duration {
	pause := min(retryFirst<<min(failures, 20), retryLast)
	return pause/2 + rand.N(pause/2)
}

// sleep returns after d, or when ctx ends.
func sleep(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// task is one plan while it is worked on.
type task struct {
	*plan
	id           string
	accounts     []*account
	certificates []*certificate
	open         sync.WaitGroup // items that are not done

	mu      sync.Mutex
	trouble map[string]string // by what it is about
	changed bool
}

// work is what one node does in one run, for all plans that have not ended.
type work struct {
	*Rekeyer
	tasks   []*task
	known   map[string]bool   // hashes of the public keys that must go
	urls    map[string]string // of ACME directories, by the name of the authority's directory
	newRoot chan struct{}     // closed when the cluster's own authority is as it must be
	limits  sync.Map          // why authorities want no requests, as far as that was logged
}

// add loads a plan.
func (w *work) add(ctx context.Context, id string) error {
	t := &task{id: id, plan: new(plan), trouble: make(map[string]string), changed: true}
	if err := w.load(ctx, planPlace(id), t.plan); err != nil {
		return err
	}
	var err error
	if t.accounts, t.certificates, err = w.loadItems(ctx, id); err != nil {
		return err
	}
	for _, c := range t.certificates {
		w.known[c.SPKI] = true
		if c.CA != "" {
			w.urls[c.Issuer] = c.CA
		}
	}
	w.tasks = append(w.tasks, t)
	return nil
}

// run does all that is left of the plans. It returns nil when they have ended.
func (w *work) run(ctx context.Context) error {
	var group sync.WaitGroup
	defer group.Wait()
	for _, t := range w.tasks {
		t.open.Add(1 + len(t.accounts) + len(t.certificates))
	}
	group.Go(func() { w.roots(ctx) })
	// Orders that are under way while the key of their account changes fail. So accounts come first,
	// but one whose authority does not answer holds nobody up.
	var tried sync.WaitGroup
	for _, chain := range byPlace(w.tasks, func(t *task) []*account { return t.accounts }, func(a *account) string { return a.Dir }) {
		first := sync.OnceFunc(tried.Done)
		tried.Add(1)
		group.Go(func() {
			defer first()
			for _, x := range chain {
				w.drive(ctx, x.task, x.item.Dir, w.calls, func(ctx context.Context) error {
					defer first()
					return w.account(ctx, x.item)
				})
			}
		})
	}
	tried.Wait()
	for site, chain := range byPlace(w.tasks, func(t *task) []*certificate { return t.certificates }, func(c *certificate) string { return c.Site }) {
		// One after another: two orders for one name at a time would be one too many. But none waits
		// for what another one cannot finish.
		turn := make(chan struct{}, 1)
		for _, x := range chain {
			j := &job{certificate: x.item}
			group.Go(func() {
				w.drive(ctx, x.task, fmt.Sprintf("%s (%s)", cmp.Or(x.item.Name, site), x.item.Issuer), turn, func(ctx context.Context) error {
					return w.step(ctx, j)
				})
			})
		}
	}
	ended := make(chan *task)
	for _, t := range w.tasks {
		group.Go(func() {
			w.finish(ctx, t)
			select {
			case ended <- t:
			case <-ctx.Done():
			}
		})
	}
	ticker := time.NewTicker(troubleEvery)
	defer ticker.Stop()
	for open := slices.Clone(w.tasks); len(open) > 0; {
		select {
		case t := <-ended:
			open = slices.DeleteFunc(open, func(x *task) bool { return x == t })
			w.tidy(ctx, t.id) // here, so that no report comes after it
		case <-ticker.C:
			w.report(ctx, open)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return ctx.Err()
}

// placed is an item and its plan.
type placed[T any] struct {
	task *task
	item T
}

// byPlace returns the items of all plans by what they are about, those of the oldest plan first.
func byPlace[T any](tasks []*task, items func(*task) []T, about func(T) string) map[string][]placed[T] {
	out := make(map[string][]placed[T])
	for _, t := range tasks {
		for _, x := range items(t) {
			out[about(x)] = append(out[about(x)], placed[T]{t, x})
		}
	}
	return out
}

// drive repeats a step until it succeeds or ctx ends. The step holds a slot.
func (w *work) drive(ctx context.Context, t *task, about string, slots chan struct{}, step func(context.Context) error) {
	defer t.open.Done()
	logged := ""
	for failures := 0; ctx.Err() == nil; {
		select {
		case slots <- struct{}{}:
		case <-ctx.Done():
			return
		}
		err := step(ctx)
		<-slots
		if err == nil {
			t.say(about, "")
			return
		}
		if ctx.Err() != nil {
			return
		}
		pause := backOff(failures)
		wait, limit := (*waiting)(nil), (*backoff.Error)(nil)
		switch {
		case errors.As(err, &wait):
			pause, failures = wait.d, 0
		case errors.As(err, &limit):
			// somebody else may be faster
			pause = min(max(time.Until(limit.Until)+time.Second, pause), retryLast)
		default:
			failures++
		}
		text := err.Error()
		if text == "" {
			t.say(about, "") // what failed before does not fail now
		} else {
			t.say(about, fmt.Sprintf("%s: %s; tried again at %s", about, text[:min(len(text), maxText)], time.Now().Add(pause).UTC().Format(time.RFC3339)))
			level := slog.LevelWarn
			told := strings.Contains(logged, text)
			if limit != nil { // it may concern thousands
				_, told = w.limits.LoadOrStore(limit.Why, true)
			}
			if told {
				level = slog.LevelDebug
			}
			logged = text
			w.Log.Log(ctx, level, "a key is not replaced yet; will try again", "of", about, "error", err, "in", pause)
		}
		sleep(ctx, pause)
	}
}

// say records what fails, nothing if text is empty.
func (t *task) say(about, text string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.trouble[about] == text {
		return
	}
	t.changed = true
	if t.trouble[about] = text; text == "" {
		delete(t.trouble, about)
	}
}

// report stores what fails now.
func (w *work) report(ctx context.Context, tasks []*task) {
	for _, t := range tasks {
		t.mu.Lock()
		changed, lines := t.changed, slices.Sorted(maps.Values(t.trouble))
		t.changed = false
		t.mu.Unlock()
		if !changed {
			continue
		}
		if more := len(lines) - maxTrouble; more > 0 {
			lines = append(lines[:maxTrouble], fmt.Sprintf("and %d more", more))
		}
		if err := w.save(ctx, troublePlace(t.id), lines); err != nil {
			t.mu.Lock()
			t.changed = true
			t.mu.Unlock()
		}
	}
}

// roots replaces the root of the cluster's own authority, if it has one.
func (w *work) roots(ctx context.Context) {
	var last sync.WaitGroup
	for _, t := range w.tasks {
		last.Go(func() {
			w.drive(ctx, t, devca.RootRecord, w.calls, func(ctx context.Context) error {
				if t.Root == "" {
					return nil
				}
				return (&devca.Issuer{Storage: w.Shared}).Replace(ctx, func(der []byte) bool { return hashOf(der) == t.Root })
			})
		})
	}
	last.Wait()
	if ctx.Err() == nil {
		close(w.newRoot)
	}
}

// finish waits until nothing is left of a plan, and records its end.
func (w *work) finish(ctx context.Context, t *task) {
	t.open.Wait()
	if ctx.Err() != nil {
		return
	}
	t.open.Add(1)
	w.drive(ctx, t, "the end", w.calls, func(ctx context.Context) error {
		if err := w.forgetKeys(ctx); err != nil {
			return fmt.Errorf("deleting copies of old keys: %w", err)
		}
		t.plan.count(t.accounts, t.certificates)
		t.Ended = w.Clocks.Now().UTC()
		if err := w.save(ctx, planPlace(t.id), t.plan); err != nil {
			return err
		}
		return nil
	})
	if ctx.Err() != nil {
		return
	}
	w.Log.Info("all keys of certificates and accounts have been replaced", "id", t.id,
		"accounts", t.RolledOver, "certificates", t.Rekeyed, "deleted", t.Deleted, "revoked", t.Revoked)
}
