package self

import (
	"net"
	"testing"
)

func TestReachable(t *testing.T) {
	for _, test := range []struct {
		addrs []string
		want  string
	}{
		{nil, "127.0.0.1"},
		{[]string{"127.0.0.1/8", "::1/128", "fe80::1/64"}, "127.0.0.1"},
		{[]string{"127.0.0.1/8", "198.18.0.100/32", "198.18.0.11/24"}, "198.18.0.11"},
		{[]string{"fd00::100/128", "fd00::11/64"}, "fd00::11"},
		{[]string{"fd00::11/64", "fd00::12/64", "198.18.0.11/24"}, "198.18.0.11"},
	} {
		var addrs []net.Addr
		for _, a := range test.addrs {
			ip, n, err := net.ParseCIDR(a)
			if err != nil {
				t.Fatal(err)
			}
			addrs = append(addrs, &net.IPNet{IP: ip, Mask: n.Mask})
		}
		if got := reachable(addrs, net.IPv4(127, 0, 0, 1)); got.String() != test.want {
			t.Errorf("of %v peers are told %v, want %s", test.addrs, got, test.want)
		}
	}
}
