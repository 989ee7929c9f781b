package state

import (
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/flotilla-ha/flotilla/internal/seal"
)

// sealed is a state with two members, and the secrets a, b and c.
type sealed struct {
	*State
	t       *testing.T
	a, b, c seal.Secret
}

func newSealed(t *testing.T) *sealed {
	s := &sealed{State: New(), t: t, a: seal.Secret{1}, b: seal.Secret{2}, c: seal.Secret{3}}
	s.Keys, s.Servers = seal.NewKeyring(), []string{"x", "y"}
	s.Wrapped = s.wrap(s.Keys, s.a)
	s.say("x", 0, s.a)
	s.say("y", 0, s.a)
	return s
}

func (s *sealed) wrap(k *seal.Keyring, secrets ...seal.Secret) []byte {
	s.t.Helper()
	w, err := k.Wrap(secrets...)
	if err != nil {
		s.t.Fatal(err)
	}
	return w
}

// say has a member say which secrets it has, and up to which entry it is clean.
func (s *sealed) say(id string, clean uint64, secrets ...seal.Secret) {
	m := Member{ID: id, Clean: clean}
	for i, secret := range secrets {
		if i > 0 {
			m.Secrets += " "
		}
		m.Secrets += secret.ID().String()
	}
	s.do(SetMember{m}, CodeOK)
}

func (s *sealed) both(clean uint64, secrets ...seal.Secret) {
	s.say("x", clean, secrets...)
	s.say("y", clean, secrets...)
}

// do applies a change, and checks its outcome.
func (s *sealed) do(c Change, want Code) {
	s.t.Helper()
	next, a := s.Apply(s.Index+1, &Command{Change: c}, nil)
	if a.Code != want {
		s.t.Fatalf("%T: %v, want %v", c, a.Code, want)
	}
	if before := s.State; want != CodeOK && (next.Seals.Rotation != before.Seals.Rotation || next.Keys != before.Keys || !slices.Equal(next.Wrapped, before.Wrapped)) {
		s.t.Fatalf("%T did something, and said %v", c, a.Code)
	}
	s.State = next
}

func (s *sealed) wantSecrets(want ...seal.Secret) {
	s.t.Helper()
	var ids []seal.KeyID
	for _, w := range want {
		ids = append(ids, w.ID())
	}
	if diff := cmp.Diff(ids, s.Secrets()); diff != "" {
		s.t.Fatalf("the secrets in use (-want +got):\n%s", diff)
	}
}

// Each step to another secret is refused until every member has acknowledged the one before.
func TestReplaceSecret(t *testing.T) {
	s := newSealed(t)
	a, b, c := s.a, s.b, s.c
	accept := AcceptSecret{Secret: b.ID(), Wrapped: s.wrap(s.Keys, a, b)}
	use, drop := UseSecret{b.ID()}, DropSecrets{b.ID(), s.wrap(s.Keys, b)}

	s.do(use, CodeChanged)
	s.do(drop, CodeChanged)
	s.do(accept, CodeUnready) // nobody has it
	s.say("x", 0, a, b)
	s.do(accept, CodeUnready) // y has not
	s.say("y", 0, a, b)
	s.do(AcceptSecret{b.ID(), s.wrap(s.Keys, b)}, CodeChanged)               // a is left out
	s.do(AcceptSecret{b.ID(), s.wrap(s.Keys, a, b, c)}, CodeChanged)         // one more
	s.do(AcceptSecret{b.ID(), s.wrap(seal.NewKeyring(), a, b)}, CodeChanged) // other keys
	s.do(AcceptSecret{b.ID(), s.wrap(s.Keys.Rotate(), a, b)}, CodeChanged)   // more keys
	s.do(AcceptSecret{b.ID(), accept.Wrapped[:len(accept.Wrapped)-1]}, CodeChanged)
	s.do(accept, CodeOK)
	s.wantSecrets(a, b)
	s.do(accept, CodeChanged) // again
	s.do(AcceptSecret{c.ID(), s.wrap(s.Keys, a, c)}, CodeChanged)
	s.do(drop, CodeChanged) // a step is left out

	s.do(use, CodeUnready) // nobody is clean
	s.say("x", s.Seals.Since, a, b)
	s.do(use, CodeUnready)
	s.say("y", s.Seals.Since, a, b)
	s.do(UseSecret{c.ID()}, CodeChanged)
	s.do(use, CodeOK)
	s.wantSecrets(b, a)
	s.do(use, CodeChanged)

	s.do(drop, CodeUnready) // nobody uses it
	s.say("x", s.Seals.Since, b, a)
	s.do(drop, CodeUnready)
	s.say("y", s.Seals.Since, b, a)
	s.Servers = append(s.Servers, "z") // one has joined, and has said nothing
	s.do(drop, CodeUnready)
	s.Servers = s.Servers[:2]
	s.do(DropSecrets{b.ID(), s.wrap(s.Keys, a)}, CodeChanged)
	s.do(drop, CodeOK)
	s.wantSecrets(b)
	if diff := cmp.Diff([]seal.KeyID{a.ID()}, s.Seals.Dropped); diff != "" {
		t.Fatal(diff)
	}
	s.both(s.Seals.Since, b, a)
	s.do(AcceptSecret{a.ID(), s.wrap(s.Keys, b, a)}, CodeChanged) // it was dropped
}

// Another data key is forgotten only when no member has anything that it has sealed.
func TestReplaceDataKey(t *testing.T) {
	s := newSealed(t)
	former, next := s.Keys, s.Keys.Rotate()
	rotate := RotateKeys{Former: former.ID(), Wrapped: s.wrap(next, s.a), Keys: next}
	forget := ForgetKeys{Wrapped: s.wrap(next.Forget(), s.a)}

	s.do(forget, CodeChanged)
	s.do(RotateKeys{Former: former.ID(), Wrapped: s.wrap(next, s.b), Keys: next}, CodeChanged)
	other := seal.NewKeyring()
	s.do(RotateKeys{Former: former.ID(), Wrapped: s.wrap(other, s.a), Keys: other}, CodeChanged)
	s.do(rotate, CodeOK)
	s.do(rotate, CodeChanged)
	old := SealEntry(former, []byte("late"))
	if s.Seals.IsTooLate(old) {
		t.Fatal("an entry of the former key does nothing already")
	}
	s.do(forget, CodeUnready)
	s.say("x", s.Seals.Since, s.a)
	s.do(forget, CodeUnready)
	s.say("y", s.Seals.Since, s.a)
	s.do(ForgetKeys{Wrapped: s.wrap(next, s.a)}, CodeChanged)
	s.do(ForgetKeys{Wrapped: s.wrap(next.Forget(), s.a, s.b)}, CodeChanged)
	s.do(forget, CodeOK)
	if !s.Seals.IsTooLate(old) || s.Seals.IsTooLate(SealEntry(s.Keys, []byte("in time"))) {
		t.Fatal("which entries come too late is wrong")
	}
	if len(s.Keys.IDs()) != 1 || s.Keys.ID() != next.ID() {
		t.Fatalf("the keyring has %v", s.Keys.IDs())
	}
	s.do(RotateKeys{Former: former.ID(), Wrapped: s.wrap(s.Keys.Rotate(), s.a)}, CodeChanged)
	s.do(RotateKeys{Former: s.Keys.ID(), Wrapped: s.wrap(s.Keys.Rotate(), s.a)}, CodeUnready)
	s.both(s.Seals.Since, s.a, s.b)
	s.do(AcceptSecret{s.b.ID(), s.wrap(s.Keys, s.a, s.b)}, CodeOK)
	s.both(s.Seals.Since, s.a, s.b)
	s.do(RotateKeys{Former: s.Keys.ID(), Wrapped: s.wrap(s.Keys.Rotate(), s.a, s.b)}, CodeChanged)
}
