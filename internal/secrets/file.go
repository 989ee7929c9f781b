package secrets

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"time"

	"github.com/flotilla-ha/flotilla/internal/seal"
)

// fileLook is how often a file of secrets is looked at.
const fileLook = time.Second

// ErrEmpty is the error of a file without a secret.
var ErrEmpty = errors.New("it holds no secret")

// ReadFile reads the secrets in a file, see Parse.
func ReadFile(path string) ([]seal.Secret, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	return Parse(string(b))
}

// Parse reads secrets in their text form, with space or commas between them. There must be one at
// least. A secret that is there twice counts once. The error repeats no text.
func Parse(text string) (all []seal.Secret, err error) {
	words := strings.FieldsFunc(text, func(r rune) bool { return strings.ContainsRune(", \t\r\n", r) })
	if len(words) == 0 {
		return nil, ErrEmpty
	}
	for i, w := range words {
		s, err := seal.ParseSecret(w)
		if err != nil {
			return nil, fmt.Errorf("it holds no valid secret in place %d: %w", i+1, err)
		}
		if _, twice := find(all, s.ID()); !twice {
			all = append(all, s)
		}
	}
	return all, nil
}

// Watch gives a set what is in a file, whenever that changes, until ctx ends. It logs what it does
// not take.
func Watch(ctx context.Context, path string, s *Set, log *slog.Logger) {
	var last []byte
	var reported string
	for ctx.Err() == nil {
		b, err := os.ReadFile(path)
		var given []seal.Secret
		if err == nil && !bytes.Equal(b, last) {
			if given, err = Parse(string(b)); err == nil {
				last = b
				s.take(given, path, log)
			}
		}
		if err != nil && err.Error() != reported {
			log.Warn("the file of secrets is not taken; the node goes on with those that it has", "file", path, "err", err)
		}
		reported = ""
		if err != nil {
			reported = err.Error()
		}
		select {
		case <-time.After(fileLook):
		case <-ctx.Done():
		}
	}
}

// take is Give, and says so in the log.
func (s *Set) take(given []seal.Secret, path string, log *slog.Logger) {
	before := s.All()
	missing := s.Give(given)
	if len(missing) == 0 && same(before, s.All()) {
		return
	}
	log.Info("the file of secrets has changed", "file", path, "secrets", s.Names())
	for _, id := range missing {
		log.Warn("the cluster uses a secret that the file has no more; put it back, or the node cannot start again before it is replaced",
			"file", path, "secret", id.String())
	}
}

func same(a, b []seal.Secret) bool {
	for _, x := range a {
		if _, ok := find(b, x.ID()); !ok {
			return false
		}
	}
	return len(a) == len(b)
}
