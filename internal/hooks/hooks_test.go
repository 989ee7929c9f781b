package hooks

import (
	"context"
	"testing"
)

// What a context says is applied on top of what there is. The innermost context counts, also
// through contexts that are derived from it.
func TestApply(t *testing.T) {
	set := func(ctx context.Context, rate float64) context.Context {
		return With(ctx, func(h *Hooks) { h.Rate = rate })
	}
	derived, cancel := context.WithCancel(set(t.Context(), 1.01))
	defer cancel()
	for _, tt := range []struct {
		name string
		ctx  context.Context
		want float64
	}{
		{"none", t.Context(), 0.99},
		{"derived", derived, 1.01},
		{"two", set(derived, 1.005), 1.005},
	} {
		t.Run(tt.name, func(t *testing.T) {
			called := false
			h := Hooks{Rate: 0.99, Delay: func() { called = true }}
			Apply(tt.ctx, &h)
			if h.Rate != tt.want {
				t.Errorf("the rate is %v, want %v", h.Rate, tt.want)
			}
			if h.Delay(); !called {
				t.Error("another hook was replaced")
			}
		})
	}
}
