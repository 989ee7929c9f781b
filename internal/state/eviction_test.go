package state

import (
	"bytes"
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/flotilla-ha/flotilla/internal/seal"
)

// replaceSecret replaces the secret from by the secret to.
func (s *sealed) replaceSecret(from, to seal.Secret) {
	s.t.Helper()
	s.both(s.Seals.Since, from, to)
	s.do(AcceptSecret{to.ID(), s.wrap(s.Keys, from, to)}, CodeOK)
	s.both(s.Seals.Since, from, to)
	s.do(UseSecret{to.ID()}, CodeOK)
	s.both(s.Seals.Since, to, from)
	s.do(DropSecrets{to.ID(), s.wrap(s.Keys, to)}, CodeOK)
}

// configure has raft's configuration consist of those members.
func (s *sealed) configure(servers ...string) {
	s.State = s.Configure(s.Index+1, servers, servers, nil)
}

// An eviction goes on when nothing that the node knows opens anything any more.
func TestEviction(t *testing.T) {
	s := newSealed(t)
	a, b, c := s.a, s.b, s.c
	s.configure("x", "y", "z")
	s.do(SetMember{Member{ID: "z", Name: "n3", Secrets: a.ID().String() + " " + c.ID().String()}}, CodeOK)
	former, key := s.Keys.ID(), make([]byte, TicketKeySize)
	shutOut := ShutOut{Node: "z", Key: key}

	s.do(EvictMember{}, CodeChanged)
	s.do(shutOut, CodeChanged)
	s.do(EndEviction{"z"}, CodeChanged)
	begun := s.Index + 1
	s.do(EvictMember{"z"}, CodeOK)
	s.do(EvictMember{"z"}, CodeChanged)
	v, ok := s.Evictions.Of("z")
	if v.String() != "n3" || !ok || v.Index != begun || !v.KnowsSecret(a.ID()) || v.KnowsSecret(b.ID()) || !v.KnowsSecret(c.ID()) {
		t.Fatalf("the eviction is %+v", v)
	}
	if s.Refuses("z") {
		t.Fatal("it is refused while it is a member: the others may need its vote")
	}
	if by, exposed := s.Exposed(); !exposed || by.Node != "z" {
		t.Fatal("nobody can prove himself who should not")
	}
	next := s.Keys.Rotate()
	s.both(s.Seals.Since, a)
	s.say("z", s.Seals.Since, a, c)
	// It gets this one too.
	s.do(RotateKeys{Former: former, Wrapped: s.wrap(next, a), Keys: next}, CodeOK)
	given := seal.Secret{4} // by its operator, before it was removed
	s.say("z", s.Seals.Since, a, c, given)
	s.configure("x", "y")
	if v, _ = s.Evictions.Of("z"); !cmp.Equal(v.Keys, []seal.KeyID{former, next.ID()}) || !v.KnowsSecret(given.ID()) || v.KnowsSecret(b.ID()) {
		t.Fatalf("it knows the keys %v and the secrets %s", v.Keys, v.Secrets)
	}
	if !s.Refuses("z") || s.Refuses("x") {
		t.Fatal("it is not refused, or another is")
	}
	s.both(s.Seals.Since, a)
	s.do(ForgetKeys{s.wrap(next.Forget(), a)}, CodeOK)
	s.both(s.Seals.Since, a, b, c)
	s.do(AcceptSecret{c.ID(), s.wrap(s.Keys, a, c)}, CodeChanged) // it knows that one too

	s.do(shutOut, CodeUnready) // the secret
	s.replaceSecret(a, b)
	if _, exposed := s.Exposed(); exposed {
		t.Fatal("it can still prove itself")
	}
	s.both(s.Seals.Since, b)
	s.do(shutOut, CodeUnready) // the data key
	last := s.Keys.Rotate()
	s.do(RotateKeys{Former: s.Keys.ID(), Wrapped: s.wrap(last, b), Keys: last}, CodeOK)
	s.both(s.Seals.Since, b)
	s.do(shutOut, CodeUnready) // the keyring has the former one still
	s.do(ForgetKeys{s.wrap(last.Forget(), b)}, CodeOK)
	s.do(shutOut, CodeUnready) // no disk is clean
	s.say("x", s.Seals.Since, b)
	s.do(shutOut, CodeUnready)
	s.say("y", s.Seals.Since, b)
	for _, other := range []Eviction{
		{Node: "z", Secrets: b.ID().String()}, {Node: "z", Keys: []seal.KeyID{last.ID()}}, {Node: "x"},
	} {
		if s.IsShutOut(other) {
			t.Errorf("%+v is shut out", other)
		}
	}
	s.do(EndEviction{"z"}, CodeChanged)
	s.do(shutOut, CodeOK)
	if s.Tickets == nil || s.Tickets.Current != nil || s.Tickets.Index != s.Index {
		t.Fatalf("the tickets are %+v", s.Tickets)
	}
	s.do(shutOut, CodeChanged)
	s.do(EndEviction{"z"}, CodeOK)
	s.do(EndEviction{"z"}, CodeChanged)
	s.do(EvictMember{"z"}, CodeChanged)
	if !s.Refuses("z") {
		t.Fatal("it is not refused any more")
	}
}

// Too many evictions that have ended are forgotten, and none of the others.
func TestEvictionsAreBounded(t *testing.T) {
	s := newSealed(t)
	s.do(EvictMember{"open"}, CodeOK)
	for i := range 2 * mostEvictions {
		s.Evictions = s.Evictions.with(Eviction{Index: uint64(i + 1), Node: fmt.Sprint(i), ShutOut: 1, Ended: 1})
	}
	if _, ok := s.Evictions.Of("open"); !ok || len(s.Evictions) != mostEvictions {
		t.Fatalf("there are %d evictions, and the open one is there: %v", len(s.Evictions), ok)
	}
	if _, ok := s.Evictions.Of(fmt.Sprint(2*mostEvictions - 1)); !ok {
		t.Fatal("the newest was forgotten")
	}
}

// A cluster that is restored, or goes on with one survivor, does not forget an eviction. A member
// that was about to be removed knows all that the members knew.
func TestRestoredGoesOnWithEviction(t *testing.T) {
	s := newSealed(t)
	s.configure("x", "y", "z")
	s.do(EvictMember{"z"}, CodeOK)
	begun, former := s.Index, s.Keys.ID()
	next := s.Keys.Rotate()
	s.both(s.Seals.Since, s.a)
	s.say("z", s.Seals.Since, s.a, s.c)
	s.do(RotateKeys{Former: former, Wrapped: s.wrap(next, s.a), Keys: next}, CodeOK)

	var b bytes.Buffer
	if err := WriteBackup(&b, s.State, BackupHead{}); err != nil {
		t.Fatal(err)
	}
	backup, _, err := ReadBackup(&b, []seal.Secret{s.a})
	if err != nil {
		t.Fatal(err)
	}
	for name, from := range map[string]*State{"survivor": s.State, "backup": backup} {
		r := from.Restored("new", 9, from.Wrapped, 0)
		v, ok := r.Evictions.Of("z")
		if !ok || v.Index != begun || !v.KnowsSecret(s.a.ID()) || !v.KnowsSecret(s.c.ID()) || !cmp.Equal(v.Keys, []seal.KeyID{former, next.ID()}) {
			t.Errorf("%s: the eviction is %+v", name, v)
		}
		if _, exposed := r.Exposed(); !exposed || !r.Refuses("z") {
			t.Errorf("%s: the evicted node may join", name)
		}
	}
}

// Who has the secret in use can ask for what it opens, so an evicted node knows a data key that is
// made before the secret is another one.
func TestEvictedNodeKnowsKeysOfItsSecret(t *testing.T) {
	s := newSealed(t)
	s.configure("x", "y", "z")
	s.do(EvictMember{"z"}, CodeOK)
	s.configure("x", "y")
	next := s.Keys.Rotate()
	s.both(s.Seals.Since, s.a)
	s.do(RotateKeys{Former: s.Keys.ID(), Wrapped: s.wrap(next, s.a), Keys: next}, CodeOK)
	s.both(s.Seals.Since, s.a)
	s.do(ForgetKeys{s.wrap(next.Forget(), s.a)}, CodeOK)
	s.replaceSecret(s.a, s.b)
	s.both(s.Seals.Since, s.b)
	shutOut := ShutOut{Node: "z", Key: make([]byte, TicketKeySize)}
	s.do(shutOut, CodeUnready)
	last := s.Keys.Rotate()
	s.do(RotateKeys{Former: s.Keys.ID(), Wrapped: s.wrap(last, s.b), Keys: last}, CodeOK)
	s.both(s.Seals.Since, s.b)
	s.do(ForgetKeys{s.wrap(last.Forget(), s.b)}, CodeOK)
	s.both(s.Seals.Since, s.b)
	s.do(shutOut, CodeOK)
}
