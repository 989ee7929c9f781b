package lifecycle

import (
	"context"
	"errors"
	"testing"

	"github.com/flotilla-ha/flotilla/internal/synctest"
)

var errTest = errors.New("a cause")

// What the methods say in each of the states of a node.
func TestStates(t *testing.T) {
	setback, failure, closed := errors.New("setback"), errors.New("failure"), errors.New("closed")
	setBack := func(l *Life) { l.Setback.Store(&Setback{Err: setback}) }
	for _, test := range []struct {
		name    string
		change  func(*Life)
		failure error
		explain error
		because []error
	}{
		{"works", func(*Life) {}, nil, errTest, []error{errTest}},
		{"setback", setBack, setback, errTest, []error{errTest, setback}},
		{"failed", func(l *Life) { l.Break(failure) }, failure, failure, []error{failure}},
		{"failed after a setback", func(l *Life) { setBack(l); l.Break(failure) }, failure, failure, []error{failure}},
		{"closed", func(l *Life) { l.End(closed) }, nil, closed, []error{closed}},
		{"closed after a failure", func(l *Life) { l.Break(failure); l.End(closed) }, nil, failure, []error{failure}},
	} {
		t.Run(test.name, func(t *testing.T) {
			l := New()
			test.change(l)
			if got := l.Failure(); got != test.failure {
				t.Errorf("Failure: %v, want %v", got, test.failure)
			}
			if got := l.Explain(errTest); got != test.explain {
				t.Errorf("Explain: %v, want %v", got, test.explain)
			}
			for _, want := range test.because {
				if got := l.Because(errTest); !errors.Is(got, want) {
					t.Errorf("Because: %v, want %v in it", got, want)
				}
			}
		})
	}
}

// A context of WhileOpen ends with the caller's, with the node's work and with its stop function.
func TestWhileOpen(t *testing.T) {
	for _, test := range []struct {
		name string
		end  func(l *Life, caller context.CancelCauseFunc, stop func())
		want error
	}{
		{"caller", func(_ *Life, caller context.CancelCauseFunc, _ func()) { caller(errTest) }, errTest},
		{"failure", func(l *Life, _ context.CancelCauseFunc, _ func()) { l.Break(errTest) }, errTest},
		{"close", func(l *Life, _ context.CancelCauseFunc, _ func()) { l.End(errTest) }, errTest},
		{"stop", func(_ *Life, _ context.CancelCauseFunc, stop func()) { stop() }, context.Canceled},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := New()
				caller, cancel := context.WithCancelCause(t.Context())
				defer cancel(nil)
				ctx, stop := l.WhileOpen(caller)
				defer stop()
				if ctx.Err() != nil {
					t.Fatal(context.Cause(ctx))
				}
				test.end(l, cancel, stop)
				<-ctx.Done()
				if got := context.Cause(ctx); got != test.want {
					t.Errorf("its cause is %v, want %v", got, test.want)
				}
			})
		})
	}
}

// AwaitChanged returns when a change makes the condition true.
func TestAwaitChanged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := New()
		done := make(chan error, 1)
		go func() { done <- l.AwaitChanged(t.Context(), l.Leaving.Load) }()
		synctest.Wait()
		l.Changed.Notify()
		synctest.Wait()
		if len(done) > 0 {
			t.Fatal("it returns before the condition is true")
		}
		l.Leaving.Store(true)
		l.Changed.Notify()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}
