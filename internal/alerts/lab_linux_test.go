package alerts_test

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/flotilla-ha/flotilla"
	"github.com/flotilla-ha/flotilla/internal/netlab"
	"github.com/flotilla-ha/flotilla/internal/netlab/labnode"
)

func TestMain(m *testing.M) {
	netlab.Main()
	labnode.Main()
	os.Exit(m.Run())
}

// A machine outside the cluster claims a floating address, on a real network with real kernels. All
// alerts but its own are silent. A move of the address by plan fires none.
func TestAddressConflict(t *testing.T) {
	if !*long {
		t.Skip("it takes a minute: it runs with -long")
	}
	if err := netlab.Available(); err != nil {
		t.Skip(err)
	}
	t.Parallel()
	command(t, "prometheus")
	lab, err := netlab.New(3, 2)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := lab.Close(); err != nil {
			t.Error(err)
		}
	})
	prefix := netip.MustParsePrefix("10.77.0.51/24")
	fleet := &labnode.Cluster{Lab: lab, Dir: t.TempDir(), Timing: flotilla.LAN, Units: labnode.Units{{prefix}}, Health: true}
	// The Prometheus is in the namespace of a client.
	s := setting{rules: faster(t, text(t), nil), listen: "127.0.0.1:9090"}
	for i := range lab.Nodes {
		if _, err := fleet.Start(i); err != nil {
			t.Fatal(err)
		}
		s.targets = append(s.targets, labnode.HealthAddr(lab.Nodes[i]))
	}
	client, other := lab.Clients[0], lab.Clients[1]
	s.start = func(cmd *exec.Cmd) error {
		_, err := client.Start(cmd)
		return err
	}
	s.dial = func(ctx context.Context, network, addr string) (conn net.Conn, err error) {
		err = client.Do(func() error {
			conn, err = new(net.Dialer).DialContext(ctx, network, addr)
			return err
		})
		return conn, err
	}
	w := &site{T: t, prom: serve(t, s)}
	w.until("a node has the address", time.Minute, func() bool {
		n, most := w.prom.samples("sum(flotilla_vip_bound) == 1 and count(flotilla_ready == 1) == 3")
		return n == 1 && most == 1
	})
	w.calm(5 * time.Second)
	p := proof{
		alert: "FlotillaAddressConflict",
		fault: func(s *site) {
			if err := errors.Join(other.AddAddr(prefix), other.Announce(prefix.Addr())); err != nil {
				s.Fatal(err)
			}
		},
		mend: func(s *site) {
			if err := other.DelAddr(prefix); err != nil {
				s.Fatal(err)
			}
		},
		clears: time.Minute, // a claim counts for 35 s
	}
	t.Log(p.prove(w))
}
