package replica

import (
	"errors"
	"fmt"

	"github.com/flotilla-ha/flotilla/internal/errs"
)

var (
	// ErrEnded is the outcome of a command whose session has ended. It wraps errs.ErrLost.
	ErrEnded = fmt.Errorf("%w: the cluster took this node for gone and ended its session", errs.ErrLost)

	// ErrNobodyStays is the reason why something was not handed over.
	ErrNobodyStays = errors.New("no majority of the voters stays")

	// errUnknown is the outcome of an attempt that may or may not have taken effect. The same command
	// is proposed again; the state machine answers a repeated one from memory.
	errUnknown = errors.New("the outcome is not known")
)
