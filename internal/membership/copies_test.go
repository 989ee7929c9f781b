package membership

import "testing"

// The last process of a node keeps its place as long as it may live. A process that does not know
// it, or lacks what it has acknowledged, never takes its place.
func TestWhoHasThePlaceOfItsNode(t *testing.T) {
	for _, test := range []struct {
		name string
		claim
		want string
	}{
		{"a restart", claim{recorded: true, knows: true, life: lifeEnded, present: true, last: 9, stored: 9}, ""},
		{"a restart, and the old address does not answer", claim{recorded: true, knows: true, present: true, last: 9, stored: 9}, ""},
		{"a copy beside its original", claim{recorded: true, life: lifeGoes, present: true, last: 9, stored: 9}, refusedCopy},
		{"a copy that knows its original", claim{recorded: true, knows: true, life: lifeGoes, present: true}, refusedCopy},
		{"a copy that knows its original, which has had no session", claim{knows: true, life: lifeGoes}, refusedCopy},
		{"the earlier of two copies without a session", claim{earlier: true, life: lifeGoes}, refusedWait},
		{"the later of two copies without a session", claim{life: lifeGoes}, ""},
		{"an older copy", claim{recorded: true, life: lifeEnded, present: true, last: 9, stored: 9}, refusedOlder},
		{"an older copy, and the last session is over", claim{recorded: true}, refusedOlder},
		{"an older copy, and the last process may live", claim{recorded: true, present: true}, refusedWait},
		{"a log that was set back", claim{recorded: true, knows: true, life: lifeEnded, present: true, last: 8, stored: 9}, refusedOlder},
		{"a log that was set back, and the last session is over", claim{recorded: true, knows: true, last: 8, stored: 9}, refusedOlder},
		{"a log that was set back, and the last process may live", claim{recorded: true, knows: true, present: true, last: 8, stored: 9}, refusedWait},
	} {
		t.Run(test.name, func(t *testing.T) {
			if got := test.judge(); got != test.want {
				t.Errorf("it is refused as %q, want %q", got, test.want)
			}
		})
	}
}
