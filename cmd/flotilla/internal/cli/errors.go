package cli

import (
	"errors"
	"fmt"
	"strings"
)

// Exit codes.
const (
	ExitOK          = 0 // everything is done
	ExitFailed      = 1 // something was refused, failed or was interrupted
	ExitUsage       = 2 // the command line is wrong
	ExitUnreachable = 3 // no node answered
)

// ErrReported ends a command that has already printed what failed. Nothing more is printed, and the
// exit code is ExitFailed.
var ErrReported = errors.New("the failure was reported")

// UsageError says that the command line, or a variable that stands for a flag, is wrong.
type UsageError struct {
	text string
}

// Error returns the reason.
func (e *UsageError) Error() string { return e.text }

// Usagef returns a UsageError.
func Usagef(format string, args ...any) error { return &UsageError{fmt.Sprintf(format, args...)} }

// Plain takes the name of the program from an error of the library, because the report begins with
// it anyway.
func Plain(err error) error {
	if err == nil {
		return nil
	}
	return errors.New(strings.TrimPrefix(err.Error(), "flotilla: "))
}
