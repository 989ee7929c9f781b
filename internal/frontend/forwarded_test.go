package frontend

import (
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestTrustForwarded(t *testing.T) {
	proxies := []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("fd00::/8")}
	const proxy, other = "10.0.0.1:5000", "198.51.100.1:5000"
	for _, tc := range []struct {
		name, peer string
		lines      []string
		want       string
	}{
		{"no header", proxy, nil, proxy},
		{"one client", proxy, []string{"203.0.113.7"}, "203.0.113.7:0"},
		{"with a port", proxy, []string{"203.0.113.7:4711"}, "203.0.113.7:4711"},
		{"IPv6", proxy, []string{"2001:db8::7"}, "[2001:db8::7]:0"},
		{"IPv6 in brackets", proxy, []string{"[2001:db8::7]"}, "[2001:db8::7]:0"},
		{"IPv6 with a port", proxy, []string{"[2001:db8::7]:4711"}, "[2001:db8::7]:4711"},
		{"IPv4 as IPv6", proxy, []string{"::ffff:203.0.113.7"}, "203.0.113.7:0"},
		{"what the client says is left", proxy, []string{"6.6.6.6, 203.0.113.7"}, "203.0.113.7:0"},
		{"two proxies", proxy, []string{"6.6.6.6 ,\t203.0.113.7, 10.0.0.2"}, "203.0.113.7:0"},
		{"two proxies in lines", proxy, []string{"6.6.6.6", "203.0.113.7", "10.0.0.2,fd00::1"}, "203.0.113.7:0"},
		{"a proxy written as IPv6", proxy, []string{"203.0.113.7, ::ffff:10.0.0.2"}, "203.0.113.7:0"},
		{"proxies alone", proxy, []string{"10.0.0.3, 10.0.0.2"}, "10.0.0.3:0"},
		{"garbage", proxy, []string{"6.6.6.6, unknown"}, proxy},
		{"garbage after a proxy", proxy, []string{"6.6.6.6, x, 10.0.0.2"}, "10.0.0.2:0"},
		{"nothing after a comma", proxy, []string{"6.6.6.6,"}, proxy},
		{"an empty line", proxy, []string{"6.6.6.6", ""}, proxy},
		{"zone", proxy, []string{"fe80::1%eth0"}, "[fe80::1]:0"},
		{"proxy by IPv6", "[fd00::9]:1", []string{"203.0.113.7"}, "203.0.113.7:0"},
		{"proxy by IPv4 as IPv6", "[::ffff:10.0.0.1]:1", []string{"203.0.113.7"}, "203.0.113.7:0"},
		{"another peer", other, []string{"203.0.113.7"}, other},
		{"another peer that names a proxy", other, []string{"203.0.113.7, 10.0.0.1"}, other},
		{"no address", "@", []string{"203.0.113.7"}, "@"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := httptest.NewRequest("GET", "/", nil)
			r.RemoteAddr = tc.peer
			r.Header = http.Header{
				"Accept": {"x"}, "X-Forwarded-For": tc.lines, "X-Forwarded-Proto": {"https"},
				"Forwarded": {"for=6.6.6.6"}, "X-Real-Ip": {"6.6.6.6"},
			}
			before := r.Header.Clone()
			want := http.Header{"Accept": {"x"}}
			if tc.peer != other && tc.peer != "@" {
				want["X-Forwarded-For"], want["X-Forwarded-Proto"] = tc.lines, []string{"https"}
			}
			given := slices.Clone(proxies)
			h := TrustForwarded(given, http.HandlerFunc(func(_ http.ResponseWriter, got *http.Request) {
				if got.RemoteAddr != tc.want {
					t.Errorf("RemoteAddr %q, want %q", got.RemoteAddr, tc.want)
				}
				if diff := cmp.Diff(want, got.Header); diff != "" {
					t.Errorf("header (-want +got):\n%s", diff)
				}
			}))
			given[0] = netip.MustParsePrefix("198.51.100.0/24") // the caller may use it for something else
			h.ServeHTTP(httptest.NewRecorder(), r)
			if diff := cmp.Diff(before, r.Header); diff != "" || r.RemoteAddr != tc.peer {
				t.Errorf("the server's request was changed (-before +after):\n%s", diff)
			}
		})
	}
}

// The address that the proxy appends counts, whatever a client writes into the header.
func FuzzTrustForwarded(f *testing.F) {
	f.Add("6.6.6.6", "10.0.0.1:5000")
	f.Add("6.6.6.6, x,, [::1", "10.0.0.1:5000")
	f.Add("10.0.0.3", "198.51.100.1:1")
	f.Add("::ffff:10.0.0.3%x,", "")
	proxies := []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}
	f.Fuzz(func(t *testing.T, said, peer string) {
		serve := func(peer string, lines ...string) (addr string) {
			r := httptest.NewRequest("GET", "/", nil)
			r.RemoteAddr, r.Header = peer, http.Header{"X-Forwarded-For": lines}
			h := TrustForwarded(proxies, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { addr = r.RemoteAddr }))
			h.ServeHTTP(httptest.NewRecorder(), r)
			return addr
		}
		for _, lines := range [][]string{{said, "203.0.113.7"}, {said + ",203.0.113.7"}, {said, "203.0.113.7, 10.0.0.2"}} {
			if got := serve("10.0.0.1:1", lines...); got != "203.0.113.7:0" {
				t.Errorf("%q made it %q", lines, got)
			}
		}
		got := serve(peer, said)
		if !strings.HasPrefix(peer, "10.") && !strings.HasPrefix(peer, "[") && got != peer {
			t.Errorf("%q from %q made it %q", said, peer, got)
		}
		if got != peer {
			if _, err := netip.ParseAddrPort(got); err != nil {
				t.Error(err)
			}
		}
	})
}
