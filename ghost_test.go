package flotilla

import (
	"bytes"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/flotilla-ha/flotilla/internal/keyspace"
	"github.com/flotilla-ha/flotilla/internal/seal"
)

// How a session ends decides who holds its roles then: the next in the queue, or a ghost until what may be seen is over.
func TestGhosts(t *testing.T) {
	for _, test := range []struct {
		name  string
		end   command // of session s of node a; its number is filled in
		ghost map[string]bool
	}{
		{"own word", command{op: opEnd, node: "a", target: "a"}, map[string]bool{}},
		{"own word, with something left", command{op: opEnd, node: "a", target: "a", flag: true}, map[string]bool{"lingers": true}},
		{"verdict", command{op: opEnd, node: "b", target: "a", cond: 1}, map[string]bool{"lingers": true}},
		{"its will", command{op: opEnd, node: "b", target: "a", key: byWill}, map[string]bool{"public": true, "lingers": true}},
		{"the next process", command{op: opOpen, node: "a", key: "new", value: []byte("boot of a")}, map[string]bool{"public": true, "lingers": true}},
		{"the same process, which left nothing", command{op: opOpen, node: "a", key: "new", value: []byte("boot of a"), flag: true}, map[string]bool{}},
	} {
		t.Run(test.name, func(t *testing.T) {
			m := newMachine(t)
			a, b := m.open("a"), m.open("b")
			conds := map[string]uint64{"private": 0, "public": 1, "lingers": 1 + 5e9, "willed": 1}
			test.ghost["willed"] = test.end.op == opOpen && !test.end.flag
			seq := uint64(0)
			for _, name := range []string{"private", "public", "lingers", "willed"} {
				seq++
				voters := uint64(0)
				if name == "willed" {
					voters = 1
				}
				m.do(command{op: opClaim, node: "a", session: a, seq: seq, key: keyspace.RolePrefix + name, number: 1 << 20, flag: true, cond: conds[name], voters: voters})
				m.do(command{op: opClaim, node: "b", session: b, seq: seq, key: keyspace.RolePrefix + name, number: 1 << 20, flag: true, cond: conds[name]})
			}
			if test.end.cond != 0 {
				m.do(command{op: opSuspect, node: "b", target: "a", number: a})
				test.end.cond, test.end.voters = m.s.session("a").suspect, m.s.elected
			}
			test.end.number, test.end.time = a, 77
			m.do(test.end)
			ended := m.s.index
			for name := range conds {
				q := m.s.claims(keyspace.RolePrefix + name)
				want := "b"
				if test.ghost[name] {
					want = "a"
				}
				if q[0].node != want || (q[0].ghost == ended) != test.ghost[name] {
					t.Errorf("%s is held by %s, ghost %d; the session ended at %d", name, q[0].node, q[0].ghost, ended)
				}
				if want == "b" && (q[0].since != 77 || q[0].index != ended) {
					t.Errorf("%s was granted at %d, by entry %d; want 77 and %d", name, q[0].since, q[0].index, ended)
				}
			}
			for _, name := range []string{"willed", "lingers", "public"} { // the will of the first is that of all
				if !test.ghost[name] {
					continue
				}
				key := keyspace.RolePrefix + name
				q := m.s.claims(key)
				if m.s.better(key, q[1].claimRef) {
					t.Error("a ghost is asked to hand over")
				}
				m.do(command{op: opFree, node: "b", key: key, number: ended - 1})
				if m.s.claims(key)[0].node != "a" {
					t.Error("a ghost leaves on a word about another one")
				}
				m.do(command{op: opEnd, node: "b", target: "a", number: a, key: byWill}) // frees at once what it is about
				if name != "willed" {
					if m.s.claims(key)[0].node != "a" {
						t.Errorf("%s is freed by a will that is not about it", name)
					}
					m.do(command{op: opFree, node: "b", key: key, number: ended, priority: 9})
				}
				if q := m.s.claims(key); q[0].node != "b" || len(q) != 1 {
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
		m.do(command{op: opClaim, node: node, session: sessions[node], seq: 1, key: key, number: 1 << 20, flag: true, priority: int64(10 - i)})
	}
	move := func(to string) code {
		return m.do(command{op: opMove, node: "b", session: sessions["b"], seq: m.s.index, key: key, target: to}).code
	}
	for to, want := range map[string]code{"d": codeNoHeir, "a": codeOK} {
		if got := move(to); got != want || m.s.claims(key)[0].yield != 0 {
			t.Errorf("moved to %s: code %d, want %d, and nobody is asked", to, got, want)
		}
	}
	if got := m.do(command{op: opMove, node: "b", session: sessions["b"], seq: 900, key: keyspace.RolePrefix + "none"}).code; got != codeNotHeld {
		t.Errorf("a role that nobody holds was moved: code %d", got)
	}
	move("c")
	if holder := m.s.claims(key)[0]; holder.yield == 0 || holder.heir.node != "c" {
		t.Fatalf("the holder is not asked to hand over to c: %+v", holder)
	}
	m.do(command{op: opRelease, node: "a", session: sessions["a"], seq: 2, key: key, number: 1})
	q := m.s.claims(key)
	if q[0].node != "c" || !q[0].pinned {
		t.Fatalf("c, with the lowest priority, did not get the role for good: %+v", q)
	}
	if m.s.better(key, q[1].claimRef) {
		t.Error("somebody better takes what was moved by hand")
	}
	if code := move(""); code != codeOK || m.s.claims(key)[0].heir.node != "b" {
		t.Errorf("moved away: code %d, holder %+v", code, m.s.claims(key)[0])
	}
}

// Ghosts and all that is known of claims are in a snapshot.
func TestSnapshotOfClaims(t *testing.T) {
	m := newMachine(t)
	a := m.open("a")
	m.do(command{op: opClaim, node: "a", session: a, seq: 1, key: keyspace.RolePrefix + "r", number: 1 << 20, flag: true, cond: 8, time: 5})
	m.do(command{op: opOpen, node: "a", key: "new", value: []byte("boot of a"), number: a})
	m.s.keys = seal.NewKeyring()
	secret := seal.Secret{1}
	var err error
	if m.s.wrapped, err = m.s.keys.Wrap(secret); err != nil {
		t.Fatal(err)
	}
	q := m.s.claims(keyspace.RolePrefix + "r")
	q[0].moved, q[0].pinned, q[0].willed, q[0].outage = true, true, true, 6
	var buf bytes.Buffer
	if err := writeSnapshot(&buf, m.s); err != nil {
		t.Fatal(err)
	}
	s, err := readSnapshot(&buf, []seal.Secret{secret})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(q, s.claims(keyspace.RolePrefix+"r"), cmp.AllowUnexported(claim{}, claimRef{})); diff != "" {
		t.Errorf("a snapshot changes claims (-want +got):\n%s", diff)
	}
}
