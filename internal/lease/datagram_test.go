package lease

import (
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// datagrams are one of each kind.
func datagrams() []datagram {
	return []datagram{
		Renew{Session: 7, Sent: 1 << 40, Urgent: true},
		Grant{Session: 7, Sent: 1 << 40, Clock: -5},
		Expired{Suspicion{SessionID{Node: "a", Number: 7}, 9}},
		Ended{Session: 7},
		Leaving{Leaving: true},
		Kept{Sent: 1 << 40, For: 1 << 20},
	}
}

// What is sent together arrives together, up to what is cut off or of an unknown kind.
func TestDatagrams(t *testing.T) {
	all := datagrams()
	bytes := encode(all...)
	if diff := cmp.Diff(all, slices.Collect(decode(bytes))); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	for n := range all {
		last := encode(all[n])
		for cut := 1; cut < len(last); cut++ {
			got := slices.Collect(decode(append(encode(all[:n]...), last[:cut]...)))
			if diff := cmp.Diff(all[:n], got, cmp.Transformer("", func(d []datagram) int { return len(d) })); diff != "" {
				t.Errorf("%T, cut after %d bytes: %s", all[n], cut, diff)
			}
		}
		unknown := append(encode(all[:n]...), 200, 1, 2)
		if got := slices.Collect(decode(append(unknown, last...))); len(got) != n {
			t.Errorf("%d datagrams before an unknown one: %v", n, got)
		}
	}
}

// Datagrams come from the network: all bytes are taken or ignored. What is taken means the same
// when it is encoded again.
func FuzzDatagrams(f *testing.F) {
	for _, d := range datagrams() {
		f.Add(encode(d))
	}
	f.Add(encode(datagrams()...))
	f.Add([]byte{200, 1})
	f.Fuzz(func(t *testing.T, b []byte) {
		got := slices.Collect(decode(b))
		if diff := cmp.Diff(got, slices.Collect(decode(encode(got...)))); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
		soloManager().OnDatagram("a", b) // nothing is answered: the state knows no session
	})
}

// So it is with the question whether a lease has expired, and with its answer.
func FuzzExpiredQuery(f *testing.F) {
	f.Add(expiredQuery{SessionID{Node: "a", Number: 7}}.encode())
	f.Add(expiredAnswer{expired: true}.encode())
	f.Add([]byte{0})
	f.Fuzz(func(t *testing.T, b []byte) {
		if q, err := decodeExpiredQuery(b); err == nil {
			if again, err := decodeExpiredQuery(q.encode()); again != q || err != nil {
				t.Errorf("%+v becomes %+v, %v", q, again, err)
			}
		}
		if a, err := decodeExpiredAnswer(b); err == nil {
			if again, err := decodeExpiredAnswer(a.encode()); again != a || err != nil {
				t.Errorf("%+v becomes %+v, %v", a, again, err)
			}
		}
	})
}
