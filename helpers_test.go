package flotilla

import (
	"log/slog"

	"github.com/flotilla-ha/flotilla/internal/applied"
	"github.com/flotilla-ha/flotilla/internal/seal"
	secretset "github.com/flotilla-ha/flotilla/internal/secrets"
	"github.com/flotilla-ha/flotilla/internal/state"
)

// testFSM returns a state machine that belongs to no node.
func testFSM(store *applied.Store, secrets []seal.Secret, log *slog.Logger, failed func(error), onApplied func(*state.Effects)) *fsm {
	return newFSM(fsmConfig{store: store, secrets: secretset.New(secrets), log: log, failed: failed, onApplied: onApplied})
}
