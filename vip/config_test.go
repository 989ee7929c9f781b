package vip

import (
	"context"
	"net/netip"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/flotilla-ha/flotilla/hold"
)

// nobody is a cluster that grants nothing.
type nobody struct{}

func (nobody) Hold(ctx context.Context, _ hold.Role, _ func(context.Context, hold.Tenure) error) error {
	<-ctx.Done()
	return ctx.Err()
}

func TestConfig(t *testing.T) {
	p := netip.MustParsePrefix
	for _, test := range []struct {
		name string
		cfg  Config
		want string // part of the error; empty: none
	}{
		{"good", Config{Addr: p("192.0.2.100/24"), With: []netip.Prefix{p("2001:db8::100/64")}}, ""},
		{"host route", Config{Addr: p("192.0.2.100/32")}, ""},
		{"two hosts", Config{Addr: p("192.0.2.100/31")}, ""},
		{"empty", Config{}, "Addr: it must be an address with the length"},
		{"network", Config{Addr: p("192.0.2.0/24")}, "the network's own address in 192.0.2.0/24"},
		{"broadcast", Config{Addr: p("192.0.2.255/24")}, "broadcast address"},
		{"broadcast of a part", Config{Addr: p("192.0.2.127/25")}, "broadcast address"},
		{"loopback", Config{Addr: p("127.0.0.2/8")}, "cannot be the address of a host"},
		{"multicast", Config{Addr: p("ff02::1/64")}, "cannot be the address of a host"},
		{"unspecified", Config{Addr: p("0.0.0.0/0")}, "cannot be the address of a host"},
		{"link-local", Config{Addr: p("fe80::1/64")}, "link-local"},
		{"mapped", Config{Addr: netip.PrefixFrom(netip.MustParseAddr("::ffff:192.0.2.1"), 120)}, "plain IPv4 or IPv6"},
		{"second", Config{Addr: p("192.0.2.100/24"), With: []netip.Prefix{{}}}, "With[0]"},
		{"twice", Config{Addr: p("192.0.2.100/24"), With: []netip.Prefix{p("192.0.2.100/25")}}, "is named twice"},
		{"interface", Config{Addr: p("192.0.2.100/24"), Interface: "eth0 up"}, "cannot be the name of an interface"},
		{"delay", Config{Addr: p("192.0.2.100/24"), PreemptDelay: -1}, "PreemptDelay"},
		{"drain", Config{Addr: p("192.0.2.100/24"), DrainTime: time.Minute}, "DrainTime"},
		{"quorum", Config{Addr: p("192.0.2.100/24"), Quorum: 7}, "neither Release nor Keep"},
		{"keep", Config{Addr: p("192.0.2.100/24"), Quorum: Keep}, "PublicHolder"},
		{"name", Config{Addr: p("192.0.2.100/24"), Name: strings.Repeat("x", 300)}, "Name"},
	} {
		t.Run(test.name, func(t *testing.T) {
			err := test.cfg.complete(nobody{})
			if test.want == "" {
				if err != nil {
					t.Error(err)
				}
			} else if err == nil || !strings.HasPrefix(err.Error(), "vip: Config.") || !strings.Contains(err.Error(), test.want) {
				t.Errorf("error %v, want %q", err, test.want)
			}
		})
	}
	cfg := Config{Addr: p("192.0.2.100/24")}
	if err := cfg.complete(nil); err == nil || !strings.Contains(err.Error(), "*flotilla.Node") {
		t.Errorf("without a cluster: %v", err)
	}
}

// Check needs no cluster. Another Binder is not asked.
func TestCheck(t *testing.T) {
	addr := netip.MustParsePrefix("198.51.100.7/24")
	if err := Check(Config{Addr: addr, Binder: NewMemory().Machine("a")}); err != nil {
		t.Errorf("with a Binder: %v", err)
	}
	if err := Check(Config{}); err == nil || !strings.Contains(err.Error(), "Addr: it must be an address") {
		t.Errorf("without an address: %v", err)
	}
	want := "there is no interface none0"
	if runtime.GOOS != "linux" {
		want = "need Linux"
	}
	if err := Check(Config{Addr: addr, Interface: "none0"}); err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("without the interface: %v, want %q", err, want)
	}
}

func TestLast4(t *testing.T) {
	for prefix, want := range map[string]string{
		"192.0.2.1/24": "192.0.2.255", "10.0.0.1/8": "10.255.255.255", "192.0.2.1/30": "192.0.2.3", "192.0.2.1/25": "192.0.2.127", "1.2.3.4/32": "1.2.3.4",
	} {
		if got := last4(netip.MustParsePrefix(prefix)).String(); got != want {
			t.Errorf("the last address of %s is %s, want %s", prefix, got, want)
		}
	}
}
