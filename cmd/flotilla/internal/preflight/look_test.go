package preflight

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/flotilla-ha/flotilla"
	"github.com/flotilla-ha/flotilla/internal/diagnosis"
	"github.com/flotilla-ha/flotilla/internal/freeport"
	"github.com/flotilla-ha/flotilla/internal/state"
)

// checkerOf returns a checker of a node with a secret, whose names resolve as given.
func checkerOf(t *testing.T, names map[string]string) *checker {
	t.Helper()
	cfg, err := flotilla.Config{
		Dir: t.TempDir(), Secrets: []flotilla.Secret{flotilla.NewSecret()}, Addr: "127.0.0.1:0", HTTPSAddr: "127.0.0.1:0", HTTPAddr: "127.0.0.1:0",
	}.WithDefaults()
	if err != nil {
		t.Fatal(err)
	}
	c := newChecker(Options{Getenv: os.Getenv, Lookup: func(_ context.Context, host string) ([]netip.Addr, error) {
		var ips []netip.Addr
		for text := range strings.FieldsSeq(names[host]) {
			ips = append(ips, netip.MustParseAddr(text))
		}
		if len(ips) == 0 {
			return nil, &net.DNSError{Err: "no such host", Name: host, IsNotFound: true}
		}
		return ips, nil
	}})
	c.cfg = cfg
	return c
}

func TestSlowDisk(t *testing.T) {
	for _, tc := range []struct {
		name   string
		median time.Duration
		err    error
		level  Level
		says   string
	}{
		{"fast", time.Millisecond, nil, OK, "a sync takes 1ms"},
		{"slow", 30 * time.Millisecond, nil, Warning, "a sync takes 30ms"},
		{"full", 0, &os.PathError{Op: "write", Path: "tmp", Err: syscall.ENOSPC}, Failure, "cannot be written and synced: no space left"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := checkerOf(t, nil)
			c.measure = func(string) (time.Duration, time.Duration, error) { return tc.median, 2 * tc.median, tc.err }
			c.disk(c.cfg.Dir)
			c.want(t, "disk", tc.level, tc.says)
		})
	}
}

func TestNothingIsLeft(t *testing.T) {
	c := checkerOf(t, nil)
	c.measure = quickly
	before := tree(t, c.cfg.Dir)
	c.directory(t.Context())
	c.want(t, "disk", OK)
	if diff := cmp.Diff(before, tree(t, c.cfg.Dir)); diff != "" {
		t.Errorf("the check has changed something (-before +after):\n%s", diff)
	}
}

func TestPorts(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	c := checkerOf(t, nil)
	c.o.Serve = true
	c.cfg.HTTPSAddr, c.cfg.HTTPAddr, c.cfg.HealthAddr = taken.Addr().String(), "192.0.2.1:80", "127.0.0.1:0"
	c.ports(t.Context())
	c.want(t, "port for peers", OK, "can listen at 127.0.0.1:0")
	c.want(t, "port for HTTPS", Failure, ", where another process listens: address already in use", "stop it, or choose")
	c.want(t, "port for HTTP", Failure, "which is not an address of this machine: ", "give an address of this machine")
	c.want(t, "port for health", OK, "can listen")
	c.fault("port", "127.0.0.1:80", &net.OpError{Op: "listen", Err: syscall.EACCES})
	c.want(t, "port", Failure, "permission denied", "ports below 1024 need the right")
	c.Report, c.inUse = nil, true
	c.ports(t.Context())
	c.want(t, "port for HTTPS", OK, "as the running node should")
	c.Report, c.o.Serve = nil, false
	c.ports(t.Context())
	if f, ok := c.Find("port for HTTPS"); ok {
		t.Errorf("without Serve: %+v", f)
	}
}

func TestAdvertise(t *testing.T) {
	for _, tc := range []struct {
		name, addr string
		remote     bool
		level      Level
		says       string
	}{
		{"a name that does not resolve", "nowhere.test:7373", true, Failure, "cannot be resolved"},
		{"loopback beside other machines", "localhost.test:7373", true, Failure, "leads each of them to itself"},
		{"nobody there", "127.0.0.1:1", false, Warning, "does not arrive here"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := checkerOf(t, map[string]string{"localhost.test": "127.0.0.1"})
			free, err := freeport.Addrs(1)
			if err != nil {
				t.Fatal(err)
			}
			c.cfg.Addr, c.cfg.Advertise, c.cfg.Peers = free[0], tc.addr, flotilla.Static("n1.test:7373")
			c.ports(t.Context())
			c.remote = tc.remote
			c.advertise(t.Context())
			c.want(t, "address for peers", tc.level, tc.says)
		})
	}
}

func TestPeers(t *testing.T) {
	plain := httptest.NewServer(http.NotFoundHandler())
	defer plain.Close()
	web := plain.Listener.Addr().String()
	c := checkerOf(t, map[string]string{"far.test": "192.0.2.7"})
	c.o.Dial = func(ctx context.Context, network, addr string) (net.Conn, error) {
		if strings.HasPrefix(addr, "far.test:") {
			return nil, &net.OpError{Op: "dial", Err: syscall.EHOSTUNREACH}
		}
		return new(net.Dialer).DialContext(ctx, network, addr)
	}
	c.cfg.Peers = flotilla.Static("gone.test:7373", "far.test:7373", web)
	c.peers(t.Context())
	c.want(t, "peer gone.test:7373", Warning, "its name does not resolve")
	c.want(t, "peer far.test:7373", Warning, "no route to host")
	c.want(t, "peer "+web, Failure, "no node's port for peers")
	if !c.remote {
		t.Error("no peer is taken for one on another machine")
	}
	c.Report = nil
	c.cfg.Peers = func(context.Context) ([]string, error) { return nil, errors.New("no resolver") }
	c.peers(t.Context())
	c.want(t, "peers", Warning, "none was found: no resolver")
	c.Report, c.cfg.Peers = nil, nil
	c.peers(t.Context())
	c.want(t, "peers", OK, "none are configured")
}

// Which of the peers is this node, before it has an identity.
func TestOwnAddress(t *testing.T) {
	for _, tc := range []struct {
		listens, peer string
		own           bool
	}{
		{":7373", "127.0.0.1:7373", true},
		{"0.0.0.0:7373", "127.0.0.1:7373", true},
		{":7373", "127.0.0.1:7374", false},
		{":7373", "192.0.2.7:7373", false},
		{"127.0.0.1:7373", "127.0.0.1:7373", true},
		{"127.0.0.2:7373", "127.0.0.1:7373", false},
	} {
		c := checkerOf(t, nil)
		c.cfg.Addr, c.addr = tc.listens, "10.9.8.7:7373"
		p := peer{addr: tc.peer, ips: []netip.Addr{netip.MustParseAddrPort(tc.peer).Addr()}, err: syscall.ECONNREFUSED}
		if got := c.isOwn(&p); got != tc.own {
			t.Errorf("of a node that listens at %s, the peer %s is its own: %v, want %v", tc.listens, tc.peer, got, tc.own)
		}
	}
}

// A peer that answers is compared.
func TestCompare(t *testing.T) {
	for _, tc := range []struct {
		name   string
		change func(*diagnosis.Report)
		level  Level
		says   string
	}{
		{"the same", func(*diagnosis.Report) {}, OK, "n1 of the cluster c1 answers with the same secret and settings"},
		{"in no cluster", func(r *diagnosis.Report) { r.Cluster = "" }, OK, "is in no cluster yet"},
		{"another cluster", func(r *diagnosis.Report) { r.Cluster = "c2" }, Failure, "n1 belongs to the cluster c2, and not to c1"},
		{"another timing", func(r *diagnosis.Report) { r.Settings["Timing"] = "wan" }, Failure, "Timing is wan there and lan here"},
		{"another authority", func(r *diagnosis.Report) { r.Settings["TLS.CA"] = "https://u:pa55w0rd@ca.test/dir?token=t0ken" }, Warning, "TLS.CA is https://ca.test/dir there"},
		{"another version", func(r *diagnosis.Report) { r.Supports = state.Version + 1 }, Warning, "upgrade the older one"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := checkerOf(t, nil)
			c.cluster = "c1"
			p := peer{addr: "n1:7373", report: diagnosis.Report{Name: "n1", Cluster: "c1", Supports: state.Version, Settings: c.settings().Values}}
			tc.change(&p.report)
			c.compare("peer", &p)
			c.want(t, "peer", tc.level, tc.says)
			if f, _ := c.Find("peer"); strings.Contains(f.Text, "pa55w0rd") || strings.Contains(f.Text, "t0ken") {
				t.Errorf("a password is shown: %s", f.Text)
			}
		})
	}
}

func TestClocks(t *testing.T) {
	for _, tc := range []struct {
		name   string
		clocks []clock
		level  Level
		says   string
	}{
		{"nobody says", nil, Warning, "neither a peer nor the authority"},
		{"right", []clock{{"n1", 30 * time.Millisecond, 0}, {"n2", -20 * time.Millisecond, 0}}, OK, "about 30ms from that of n1"},
		{"a little ahead", []clock{{"n1", time.Second, 0}, {"n2", -2 * time.Minute, 0}}, Warning, "2m0s ahead of that of n2"},
		{"far behind", []clock{{"n1", 3 * time.Hour, 0}}, Failure, "3h0m0s behind that of n1"},
		{"as far as one can tell", []clock{{"n1", 61 * time.Second, 2 * time.Second}}, OK, "59s"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := checkerOf(t, nil)
			c.clocks = tc.clocks
			c.compareClocks(t.Context())
			c.want(t, "clock", tc.level, tc.says)
		})
	}
}

func TestAuthority(t *testing.T) {
	for _, tc := range []struct {
		name   string
		body   string
		status int
		date   time.Duration // of its clock, ahead
		level  Level
		says   string
		clock  Level
	}{
		{"it answers", `{"newOrder":"https://ca.test/order"}`, 200, 0, OK, "it answers", OK},
		{"its clock is ahead", `{"newOrder":"https://ca.test/order"}`, 200, 2 * time.Hour, OK, "it answers", Failure},
		{"no authority", `<html>`, 200, 0, Warning, "no ACME directory", Warning},
		{"broken", `{}`, 500, 0, Warning, "status 500", Warning},
	} {
		t.Run(tc.name, func(t *testing.T) {
			ca := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Date", time.Now().Add(tc.date).UTC().Format(http.TimeFormat))
				w.WriteHeader(tc.status)
				w.Write([]byte(tc.body))
			}))
			defer ca.Close()
			c := checkerOf(t, nil)
			c.cfg.TLS.CA = ca.URL
			c.cfg.TLS.TrustedRoots = ca.Client().Transport.(*http.Transport).TLSClientConfig.RootCAs
			c.authority(t.Context())
			c.compareClocks(t.Context())
			c.want(t, "authority", tc.level, tc.says)
			c.want(t, "clock", tc.clock)
		})
	}
	c := checkerOf(t, nil)
	c.cfg.TLS.CA = "https://127.0.0.1:1/dir?token=t0ken"
	c.authority(t.Context())
	c.want(t, "authority", Warning, "127.0.0.1 does not answer")
	if f, _ := c.Find("authority"); strings.Contains(f.Text, "t0ken") {
		t.Errorf("a password is shown: %s", f.Text)
	}
}

func TestDomains(t *testing.T) {
	c := checkerOf(t, map[string]string{"here.test": "127.0.0.1", "floats.test": "198.51.100.7", "peer.test": "192.0.2.7", "away.test": "192.0.2.8 127.0.0.1"})
	c.o.Addresses = []netip.Prefix{netip.MustParsePrefix("198.51.100.7/24")}
	c.peerHosts = []netip.Addr{netip.MustParseAddr("192.0.2.7")}
	c.o.Domains = []string{"here.test", "floats.test", "peer.test", "away.test", "unknown.test", "*.wild.test"}
	c.domains(t.Context())
	c.want(t, "domain here.test", OK, "it leads to 127.0.0.1")
	c.want(t, "domain floats.test", OK, "198.51.100.7")
	c.want(t, "domain peer.test", OK, "192.0.2.7")
	c.want(t, "domain away.test", Warning, "it leads to 192.0.2.8, which is neither")
	c.want(t, "domain unknown.test", Failure, "DNS does not know it")
	c.want(t, "domain *.wild.test", OK, "DNS challenge")
	c.Report = nil
	c.o.Lookup = func(context.Context, string) ([]netip.Addr, error) { return nil, errors.New("no resolver") }
	c.domains(t.Context())
	c.want(t, "domain here.test", Warning, "no resolver")
}

func TestAddresses(t *testing.T) {
	c := checkerOf(t, nil)
	c.o.Interface = "none0"
	c.o.Addresses = []netip.Prefix{netip.MustParsePrefix("198.51.100.0/24"), netip.MustParsePrefix("198.51.100.7/24")}
	c.addresses(t.Context())
	c.want(t, "address 198.51.100.0/24", Failure, "the network's own address")
	if runtime.GOOS != "linux" {
		c.want(t, "address 198.51.100.7/24", Failure, "need Linux")
		return
	}
	c.want(t, "address 198.51.100.7/24", Failure, "there is no interface none0")
	if os.Geteuid() != 0 {
		c.want(t, "address 198.51.100.7/24", Failure, "lacks the capabilities NET_ADMIN and NET_RAW")
		t.Skip("the rest needs root: it asks for an address on the interface lo")
	}
	c.Report, c.o.Interface, c.o.Addresses = nil, "lo", c.o.Addresses[1:]
	c.addresses(t.Context())
	c.want(t, "address 198.51.100.7/24", Warning, "lo has no address in 198.51.100.0/24")
}
