package state

import (
	"slices"

	"github.com/flotilla-ha/flotilla/event"
	"github.com/flotilla-ha/flotilla/internal/codec"
	"github.com/flotilla-ha/flotilla/internal/seal"
)

// Behind returns the IDs of the members for which ok is false, or that have said nothing yet.
func (s *State) Behind(ok func(Member) bool) (ids []string) {
	for _, id := range s.Servers {
		if m, said := s.Member(id); !said || !ok(m) {
			ids = append(ids, id)
		}
	}
	return ids
}

// IsClean reports whether a member has nothing on its disk that was sealed before the newest change
// of the keyring.
func (s *State) IsClean(m Member) bool { return m.Clean >= s.Seals.Since }

// rewrap replaces the keyring by another one with the same active key. It does nothing if wrapped
// is not that keyring, or opens with other secrets than those.
func (s *State) rewrap(keys *seal.Keyring, wrapped []byte, secrets []seal.KeyID, cause string, e entry) Code {
	have, err := seal.SecretsOf(wrapped)
	if err != nil || !sameIDs(have, secrets) || !keys.IsIn(wrapped) {
		return CodeChanged
	}
	s.Keys, s.Wrapped, s.Seals.Since = keys, wrapped, e.index
	e.fx.seals()
	e.fx.report(News{Kind: event.KeysReplaced, Index: e.index, Cause: cause})
	return CodeOK
}

func sameIDs(a, b []seal.KeyID) bool {
	contains := func(in []seal.KeyID) func(seal.KeyID) bool {
		return func(id seal.KeyID) bool { return !slices.Contains(in, id) }
	}
	return !slices.ContainsFunc(a, contains(b)) && !slices.ContainsFunc(b, contains(a))
}

// AcceptSecret is the first step to another secret: both open the keyring from then on. It does
// nothing unless every member has the new secret.
type AcceptSecret struct {
	// Secret is the ID of the new secret.
	Secret seal.KeyID

	// Wrapped is the keyring, wrapped with the new secret and all that open it now.
	Wrapped []byte
}

func (AcceptSecret) number() byte { return numberAcceptSecret }

func (c AcceptSecret) encode(e *codec.Encoder) {
	encodeKeyID(e, c.Secret)
	e.Bytes(c.Wrapped)
}

func decodeAcceptSecret(d *codec.Decoder) Change {
	return AcceptSecret{Secret: decodeKeyID(d), Wrapped: d.Bytes()}
}

func (c AcceptSecret) apply(s *State, e entry) Code {
	_, known := s.Evictions.Know(c.Secret)
	switch {
	case s.Keys == nil || s.Seals.Rotation != Rotation{} || slices.Contains(s.Seals.Dropped, c.Secret):
		return CodeChanged
	case known: // by a node that was evicted
		return CodeChanged
	case len(s.Behind(func(m Member) bool { return m.HasSecret(c.Secret) && s.IsClean(m) })) > 0:
		return CodeUnready
	}
	code := s.rewrap(s.Keys, c.Wrapped, append(without(s.Secrets(), c.Secret), c.Secret), "every node accepts the new secret", e)
	if code == CodeOK {
		s.Seals.Rotation = Rotation{To: c.Secret}
	}
	return code
}

// UseSecret is the second step: nodes prove themselves with the new secret. It does nothing unless
// every member can open all that it has with the new secret.
type UseSecret struct {
	// Secret is the ID of the new secret.
	Secret seal.KeyID
}

func (UseSecret) number() byte { return numberUseSecret }

func (c UseSecret) encode(e *codec.Encoder) { encodeKeyID(e, c.Secret) }

func decodeUseSecret(d *codec.Decoder) Change { return UseSecret{Secret: decodeKeyID(d)} }

func (c UseSecret) apply(s *State, e entry) Code {
	switch {
	case s.Seals.Rotation != Rotation{To: c.Secret}:
		return CodeChanged
	case len(s.Behind(func(m Member) bool { return s.IsClean(m) && m.HasSecret(c.Secret) })) > 0:
		return CodeUnready
	}
	s.Seals.Rotation.Used = true
	e.fx.seals()
	e.fx.report(News{Kind: event.KeysReplaced, Index: e.index, Cause: "every node proves itself with the new secret"})
	return CodeOK
}

// DropSecrets is the last step: only the new secret opens the keyring, and nodes refuse all others.
// It does nothing unless every member proves itself with the new secret.
type DropSecrets struct {
	// Secret is the ID of the secret that stays.
	Secret seal.KeyID

	// Wrapped is the keyring, wrapped with that secret alone.
	Wrapped []byte
}

func (DropSecrets) number() byte { return numberDropSecrets }

func (c DropSecrets) encode(e *codec.Encoder) {
	encodeKeyID(e, c.Secret)
	e.Bytes(c.Wrapped)
}

func decodeDropSecrets(d *codec.Decoder) Change {
	return DropSecrets{Secret: decodeKeyID(d), Wrapped: d.Bytes()}
}

func (c DropSecrets) apply(s *State, e entry) Code {
	switch {
	case s.Seals.Rotation != Rotation{To: c.Secret, Used: true}:
		return CodeChanged
	case len(s.Behind(func(m Member) bool { return m.Uses(c.Secret) && s.IsClean(m) })) > 0:
		return CodeUnready
	}
	others := without(s.Secrets(), c.Secret)
	code := s.rewrap(s.Keys, c.Wrapped, []seal.KeyID{c.Secret}, "only the new secret is accepted", e)
	if code == CodeOK {
		s.Seals.Rotation = Rotation{}
		s.Seals.Dropped = remembered(s.Seals.Dropped, others...)
	}
	return code
}

// RotateKeys adds a new data key, which seals from then on. It does nothing while the secret is
// being replaced, or while a member has something that was sealed before the last change.
type RotateKeys struct {
	// Former is the ID of the present key.
	Former seal.KeyID

	// Wrapped is the keyring with the new key and the present one.
	Wrapped []byte

	// Keys is the keyring in Wrapped. It is not in the log: the node that applies the command opens
	// Wrapped. Nil: it could not. The state then has no keys, and must not be used.
	Keys *seal.Keyring
}

func (RotateKeys) number() byte { return numberRotateKeys }

func (c RotateKeys) encode(e *codec.Encoder) {
	encodeKeyID(e, c.Former)
	e.Bytes(c.Wrapped)
}

func decodeRotateKeys(d *codec.Decoder) Change {
	return RotateKeys{Former: decodeKeyID(d), Wrapped: d.Bytes()}
}

func (c RotateKeys) apply(s *State, e entry) Code {
	have, err := seal.SecretsOf(c.Wrapped)
	switch {
	case s.Keys == nil || s.Seals.Rotation != Rotation{} || err != nil || !sameIDs(have, s.Secrets()):
		return CodeChanged
	case len(s.Keys.IDs()) > 1 || s.Keys.ID() != c.Former:
		return CodeChanged
	case c.Keys != nil && !slices.Equal(c.Keys.IDs()[1:], s.Keys.IDs()):
		return CodeChanged
	case len(s.Behind(s.IsClean)) > 0:
		return CodeUnready
	}
	s.Keys, s.Wrapped, s.Seals.Since = c.Keys, c.Wrapped, e.index
	for _, v := range s.Evictions {
		if c.Keys != nil && slices.ContainsFunc(have, v.KnowsSecret) { // it can ask for a backup
			s.Evictions = s.Evictions.with(v.knowing(c.Keys.IDs()))
		}
	}
	e.fx.seals()
	e.fx.report(News{Kind: event.KeysReplaced, Index: e.index, Cause: "a new data key seals from now on"})
	return CodeOK
}

// ForgetKeys leaves only the newest data key in the keyring. It does nothing unless no member has
// anything that another key has sealed.
type ForgetKeys struct {
	// Wrapped is the keyring with the newest key alone.
	Wrapped []byte
}

func (ForgetKeys) number() byte { return numberForgetKeys }

func (c ForgetKeys) encode(e *codec.Encoder) { e.Bytes(c.Wrapped) }

func decodeForgetKeys(d *codec.Decoder) Change { return ForgetKeys{Wrapped: d.Bytes()} }

func (c ForgetKeys) apply(s *State, e entry) Code {
	if s.Keys == nil || s.Seals.Rotation != (Rotation{}) || len(s.Keys.IDs()) < 2 {
		return CodeChanged
	}
	if len(s.Behind(s.IsClean)) > 0 {
		return CodeUnready
	}
	old := s.Keys.IDs()[1:]
	code := s.rewrap(s.Keys.Forget(), c.Wrapped, s.Secrets(), "the former data key is forgotten", e)
	if code == CodeOK {
		s.Seals.Forgotten = remembered(s.Seals.Forgotten, old...)
	}
	return code
}
