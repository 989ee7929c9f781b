package keepalived

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/flotilla-ha/flotilla/internal/netlab"
)

// Available returns nil if keepalived is installed. Otherwise its error is one sentence that says
// how to install it.
func Available() error {
	if _, err := exec.LookPath("keepalived"); err != nil {
		return fmt.Errorf("keepalived is not installed (Debian: apt-get install keepalived): %w", err)
	}
	return nil
}

// Setup describes keepalived on all nodes of a lab.
type Setup struct {
	// Lab is the laboratory.
	Lab *netlab.Lab
	// Dir is a directory for its files.
	Dir string
	// Interval chooses VRRPv3 with an advertisement so often, in whole hundredths of a second. If it
	// is zero all settings are the defaults: VRRPv2 (v3 for IPv6) with one every second.
	Interval time.Duration
	// Addrs are the addresses. Those at index k belong to node k (modulo the number of nodes). The
	// next node takes over, and so on.
	Addrs [][]netip.Addr
}

// Start starts keepalived on node i, with its program alive.
func (k Setup) Start(i int) (*netlab.Process, error) {
	if err := k.SetAlive(i, true); err != nil {
		return nil, err
	}
	node := k.Lab.Nodes[i]
	conf := k.path(i, "conf")
	if err := os.WriteFile(conf, []byte(k.config(i)), 0o600); err != nil {
		return nil, err
	}
	// The files of a killed keepalived may name processes that nobody has waited for yet.
	// keepalived would not start beside them.
	for _, suffix := range []string{"pid", "vrrp.pid"} {
		if err := os.Remove(k.path(i, suffix)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
	}
	return node.Start(exec.Command("keepalived", "--dont-fork", "--log-console", "--no-syslog", "--vrrp",
		"--use-file", conf, "--pid", k.path(i, "pid"), "--vrrp_pid", k.path(i, "vrrp.pid")))
}

// SetAlive tells the keepalived of node i whether its program is alive.
func (k Setup) SetAlive(i int, alive bool) error {
	state := "1\n"
	if alive {
		state = "0\n"
	}
	return os.WriteFile(k.path(i, "state"), []byte(state), 0o600)
}

func (k Setup) path(i int, suffix string) string {
	return filepath.Join(k.Dir, k.Lab.Nodes[i].Name+"."+suffix)
}

// config returns the configuration of a node.
func (k Setup) config(node int) string {
	nodes := len(k.Lab.Nodes)
	var b strings.Builder
	fmt.Fprintf(&b, "global_defs {\n  router_id %s\n", k.Lab.Nodes[node].Name)
	interval := "1"
	if k.Interval != 0 {
		b.WriteString("  vrrp_version 3\n")
		interval = fmt.Sprintf("%.2f", k.Interval.Seconds())
	}
	fmt.Fprintf(&b, "}\ntrack_file program {\n  file %s\n  weight 0\n}\n", k.path(node, "state"))
	id := 0
	for i, addrs := range k.Addrs {
		for _, addr := range addrs {
			id++
			fmt.Fprintf(&b, `vrrp_instance I%d {
  state BACKUP
  interface %s
  virtual_router_id %d
  priority %d
  advert_int %s
  track_file {
    program
  }
  virtual_ipaddress {
    %s/%d
  }
}
`, id, netlab.Interface, id, 200-20*((node-i%nodes+nodes)%nodes), interval, addr, addr.BitLen())
		}
	}
	return b.String()
}
