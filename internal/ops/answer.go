package ops

import (
	"fmt"

	"github.com/flotilla-ha/flotilla/internal/remote"
)

// refuse returns an answer that refuses a request. Another attempt would get the same answer.
func refuse(format string, args ...any) (remote.Answer, error) {
	return remote.Answer{Refused: true, Text: fmt.Sprintf(format, args...)}, nil
}

// done returns the answer to a request that was carried out.
func done(format string, args ...any) (remote.Answer, error) {
	return remote.Answer{Text: fmt.Sprintf(format, args...)}, nil
}
