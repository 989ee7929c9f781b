package flotilla

import (
	"bytes"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/flotilla-ha/flotilla/internal/keyspace"
	"github.com/flotilla-ha/flotilla/internal/seal"
	"github.com/flotilla-ha/flotilla/internal/state"
)

// How a session ends decides who holds its roles then: the next in the queue, or a ghost until what may be seen is over.
func TestGhosts(t *testing.T) {
	for _, test := range []struct {
		name  string
		end   state.Command // of session s of node a; its number is filled in
		ghost map[string]bool
	}{
		{"own word", state.Command{Op: state.OpEnd, Node: "a", Target: "a"}, map[string]bool{}},
		{"own word, with something left", state.Command{Op: state.OpEnd, Node: "a", Target: "a", Flag: true}, map[string]bool{"lingers": true}},
		{"verdict", state.Command{Op: state.OpEnd, Node: "b", Target: "a", Cond: 1}, map[string]bool{"lingers": true}},
		{"its will", state.Command{Op: state.OpEnd, Node: "b", Target: "a", Key: state.ByDeathNotice}, map[string]bool{"public": true, "lingers": true}},
		{"the next process", state.Command{Op: state.OpOpen, Node: "a", Key: "new", Value: []byte("boot of a")}, map[string]bool{"public": true, "lingers": true}},
		{"the same process, which left nothing", state.Command{Op: state.OpOpen, Node: "a", Key: "new", Value: []byte("boot of a"), Flag: true}, map[string]bool{}},
	} {
		t.Run(test.name, func(t *testing.T) {
			m := newMachine(t)
			a, b := m.open("a"), m.open("b")
			conds := map[string]uint64{"private": 0, "public": 1, "lingers": 1 + 5e9, "willed": 1}
			test.ghost["willed"] = test.end.Op == state.OpOpen && !test.end.Flag
			seq := uint64(0)
			for _, name := range []string{"private", "public", "lingers", "willed"} {
				seq++
				voters := uint64(0)
				if name == "willed" {
					voters = 1
				}
				m.do(state.Command{Op: state.OpClaim, Node: "a", Session: a, Seq: seq, Key: keyspace.RolePrefix + name, Number: 1 << 20, Flag: true, Cond: conds[name], Voters: voters})
				m.do(state.Command{Op: state.OpClaim, Node: "b", Session: b, Seq: seq, Key: keyspace.RolePrefix + name, Number: 1 << 20, Flag: true, Cond: conds[name]})
			}
			if test.end.Cond != 0 {
				m.do(state.Command{Op: state.OpSuspect, Node: "b", Target: "a", Number: a})
				test.end.Cond, test.end.Voters = m.s.Session("a").Suspect, m.s.Elected
			}
			test.end.Number, test.end.Time = a, 77
			m.do(test.end)
			ended := m.s.Index
			for name := range conds {
				q := m.s.Claims(keyspace.RolePrefix + name)
				want := "b"
				if test.ghost[name] {
					want = "a"
				}
				if q[0].Node != want || (q[0].HoldDown == ended) != test.ghost[name] {
					t.Errorf("%s is held by %s, ghost %d; the session ended at %d", name, q[0].Node, q[0].HoldDown, ended)
				}
				if want == "b" && (q[0].Since != 77 || q[0].Index != ended) {
					t.Errorf("%s was granted at %d, by entry %d; want 77 and %d", name, q[0].Since, q[0].Index, ended)
				}
			}
			for _, name := range []string{"willed", "lingers", "public"} { // the will of the first is that of all
				if !test.ghost[name] {
					continue
				}
				key := keyspace.RolePrefix + name
				q := m.s.Claims(key)
				if m.s.Better(key, q[1].Ref) {
					t.Error("a ghost is asked to hand over")
				}
				m.do(state.Command{Op: state.OpExpireHoldDown, Node: "b", Key: key, Number: ended - 1})
				if m.s.Claims(key)[0].Node != "a" {
					t.Error("a ghost leaves on a word about another one")
				}
				m.do(state.Command{Op: state.OpEnd, Node: "b", Target: "a", Number: a, Key: state.ByDeathNotice}) // frees at once what it is about
				if name != "willed" {
					if m.s.Claims(key)[0].Node != "a" {
						t.Errorf("%s is freed by a will that is not about it", name)
					}
					m.do(state.Command{Op: state.OpExpireHoldDown, Node: "b", Key: key, Number: ended, Priority: 9})
				}
				if q := m.s.Claims(key); q[0].Node != "b" || len(q) != 1 {
					t.Errorf("%s is not b's after its ghost: %+v", name, q)
				}
			}
		})
	}
}

// A role that is moved by hand goes to whom it was moved to, who keeps it although others are better.
func TestMoveByHand(t *testing.T) {
	m := newMachine(t)
	key := keyspace.RolePrefix + "r"
	sessions := make(map[string]uint64)
	for i, node := range []string{"a", "b", "c"} {
		sessions[node] = m.open(node)
		m.do(state.Command{Op: state.OpClaim, Node: node, Session: sessions[node], Seq: 1, Key: key, Number: 1 << 20, Flag: true, Priority: int64(10 - i)})
	}
	move := func(to string) state.Code {
		return m.do(state.Command{Op: state.OpMove, Node: "b", Session: sessions["b"], Seq: m.s.Index, Key: key, Target: to}).Code
	}
	for to, want := range map[string]state.Code{"d": state.CodeNoTransferee, "a": state.CodeOK} {
		if got := move(to); got != want || m.s.Claims(key)[0].Yield != 0 {
			t.Errorf("moved to %s: code %d, want %d, and nobody is asked", to, got, want)
		}
	}
	if got := m.do(state.Command{Op: state.OpMove, Node: "b", Session: sessions["b"], Seq: 900, Key: keyspace.RolePrefix + "none"}).Code; got != state.CodeNotHeld {
		t.Errorf("a role that nobody holds was moved: code %d", got)
	}
	move("c")
	if holder := m.s.Claims(key)[0]; holder.Yield == 0 || holder.Transferee.Node != "c" {
		t.Fatalf("the holder is not asked to hand over to c: %+v", holder)
	}
	m.do(state.Command{Op: state.OpRelease, Node: "a", Session: sessions["a"], Seq: 2, Key: key, Number: 1})
	q := m.s.Claims(key)
	if q[0].Node != "c" || !q[0].Pinned {
		t.Fatalf("c, with the lowest priority, did not get the role for good: %+v", q)
	}
	if m.s.Better(key, q[1].Ref) {
		t.Error("somebody better takes what was moved by hand")
	}
	if code := move(""); code != state.CodeOK || m.s.Claims(key)[0].Transferee.Node != "b" {
		t.Errorf("moved away: code %d, holder %+v", code, m.s.Claims(key)[0])
	}
}

// Ghosts and all that is known of claims are in a snapshot.
func TestSnapshotOfClaims(t *testing.T) {
	m := newMachine(t)
	a := m.open("a")
	m.do(state.Command{Op: state.OpClaim, Node: "a", Session: a, Seq: 1, Key: keyspace.RolePrefix + "r", Number: 1 << 20, Flag: true, Cond: 8, Time: 5})
	m.do(state.Command{Op: state.OpOpen, Node: "a", Key: "new", Value: []byte("boot of a"), Number: a})
	m.s.Keys = seal.NewKeyring()
	secret := seal.Secret{1}
	var err error
	if m.s.Wrapped, err = m.s.Keys.Wrap(secret); err != nil {
		t.Fatal(err)
	}
	q := m.s.Claims(keyspace.RolePrefix + "r")
	q[0].Moved, q[0].Pinned, q[0].ReleasedOnDeath, q[0].Outage = true, true, true, 6
	var buf bytes.Buffer
	if err := state.WriteSnapshot(&buf, m.s); err != nil {
		t.Fatal(err)
	}
	s, err := state.ReadSnapshot(&buf, []seal.Secret{secret})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(q, s.Claims(keyspace.RolePrefix+"r"), cmp.AllowUnexported(state.Claim{}, state.Ref{})); diff != "" {
		t.Errorf("a snapshot changes claims (-want +got):\n%s", diff)
	}
}
