package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/flotilla-ha/flotilla/cmd/flotilla/internal/admin"
	"github.com/flotilla-ha/flotilla/cmd/flotilla/internal/cli"
	"github.com/flotilla-ha/flotilla/cmd/flotilla/internal/show"
	"github.com/flotilla-ha/flotilla/cmd/flotilla/internal/term"
	"github.com/flotilla-ha/flotilla/internal/remote"
	"github.com/flotilla-ha/flotilla/internal/view"
)

// watch is "status -watch".
type watch struct {
	env      *cli.Env
	client   *admin.Client
	interval time.Duration
	asJSON   bool

	before show.Facts // nil: nothing was shown yet
}

// run shows the cluster until ctx ends.
func (w *watch) run(ctx context.Context) error {
	for {
		v, err := w.client.Look(ctx)
		if ctx.Err() != nil {
			return nil // the operator interrupts it: this is no failure
		}
		if unreachable := (*remote.UnreachableError)(nil); err != nil && !errors.As(err, &unreachable) {
			return err
		}
		if err := w.show(v, err); err != nil {
			return err
		}
		select {
		case <-time.After(w.interval):
		case <-ctx.Done():
			return nil
		}
	}
}

// show shows the cluster, or why no node has answered.
func (w *watch) show(v *view.Cluster, unreachable error) error {
	now, facts := time.Now(), w.before
	if unreachable == nil {
		facts = show.FactsOf(v)
	}
	facts = facts.Answering(unreachable == nil)
	before := w.before
	w.before = facts
	switch {
	case w.asJSON && before.Equal(facts):
		return nil
	case w.asJSON && unreachable != nil:
		return w.env.WriteJSONLine(struct{ Err string }{unreachable.Error()})
	case w.asJSON:
		return w.env.WriteJSONLine(v.JSON())
	case w.env.Screen:
		w.redraw(v, unreachable, now, before == nil)
	case before == nil && unreachable == nil:
		show.Status(w.env.Stdout, w.env.Style(), v, now)
		fmt.Fprintln(w.env.Stdout)
	default:
		facts.WriteChanges(w.env.Stdout, now, before)
	}
	return nil
}

func (w *watch) redraw(v *view.Cluster, unreachable error, now time.Time, first bool) {
	var b strings.Builder
	fmt.Fprintf(&b, "%s  every %v, ends with Ctrl-C\n\n", now.Format(time.DateTime), w.interval)
	if unreachable != nil {
		fmt.Fprintln(&b, unreachable)
	} else {
		show.Status(&b, w.env.Style(), v, now)
	}
	height := 0
	if w.env.Height != nil {
		height = w.env.Height()
	}
	term.Redraw(w.env.Stdout, b.String(), height, first)
}
