package roles

import (
	"testing"

	"github.com/flotilla-ha/flotilla/internal/state"
)

// A holder of an old session may report late that it keeps its role. The newest session that
// keeps one still counts.
func TestNewestKeptSessionCounts(t *testing.T) {
	ts := newTenures(&Config{}, nil, new(presence))
	for _, session := range []uint64{8, 5} {
		ts.keep(&Tenure{ref: state.Ref{Session: session}})
	}
	if !ts.visible(8) {
		t.Error("nothing of session 8 is visible, although it keeps a role")
	}
}
