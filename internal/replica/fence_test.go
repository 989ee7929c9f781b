package replica

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/flotilla-ha/flotilla/internal/state"
)

// A command takes effect only while all tenures last whose contexts it was given, and these are of
// the same session of the same node.
func TestFences(t *testing.T) {
	outer, inner := state.Fence{Role: "r", Seq: 1}, state.Fence{Role: "s", Seq: 2}
	ctx := withFence(t.Context(), "node", 5, outer)
	ctx = withFence(ctx, "node", 5, inner)
	for _, test := range []struct {
		name    string
		by      string
		session uint64
		want    error // nil: none
		says    string
	}{
		{"own", "node", 0, nil, ""},
		{"own by its session", "node", 5, nil, ""},
		{"another session", "node", 4, ErrEnded, ""},
		{"another node", "other", 0, nil, "a tenure of another node"},
	} {
		t.Run(test.name, func(t *testing.T) {
			c := state.Command{Session: test.session}
			err := applyFences(ctx, test.by, &c)
			switch {
			case test.says != "":
				if err == nil || !strings.Contains(err.Error(), test.says) {
					t.Error(err)
				}
			case !errors.Is(err, test.want):
				t.Error(err)
			case err == nil:
				if diff := cmp.Diff([]state.Fence{inner, outer}, c.Fences); diff != "" || c.Session != 5 {
					t.Errorf("session %d, fences: %s", c.Session, diff)
				}
			}
		})
	}
	var c state.Command
	if err := applyFences(t.Context(), "node", &c); err != nil || c.Session != 0 || c.Fences != nil {
		t.Errorf("without a tenure: %v, %+v", err, c)
	}
}
