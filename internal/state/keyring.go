package state

import (
	"slices"

	"github.com/flotilla-ha/flotilla/internal/seal"
)

// Secrets returns the IDs of the secrets that open the keyring, in the order in which nodes use
// them. It returns none before the keyring's entry.
func (s *State) Secrets() []seal.KeyID {
	ids, err := seal.SecretsOf(s.Wrapped)
	if err != nil {
		return nil
	}
	if s.Seals.Rotation.Used {
		ids = append([]seal.KeyID{s.Seals.Rotation.To}, without(ids, s.Seals.Rotation.To)...)
	}
	return ids
}

func without(ids []seal.KeyID, id seal.KeyID) []seal.KeyID {
	return slices.DeleteFunc(slices.Clone(ids), func(other seal.KeyID) bool { return other == id })
}
