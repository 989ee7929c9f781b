package netlab

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// Keepalived runs keepalived on nodes of a lab, as somebody would set it up who knows it: an instance per address, priorities
// shifted by one from node to node, and a file that tells it at once that the program it is there for has died. (Its own tracking of
// processes is by an interface of the kernel that is not there in network namespaces; a file that a supervisor writes is as fast.)
type Keepalived struct {
	// Dir is where its files are.
	Dir string
	// Fast is VRRPv3 with an advertisement every 100 ms. Otherwise all is as it comes: VRRPv2 (v3 for IPv6), every second.
	Fast bool
	// Addrs are the addresses. Those at index k are node k's (modulo the number of nodes), then the next node's, and so on.
	Addrs [][]netip.Addr
}

// Available says in one sentence why keepalived cannot be run; nil if it can.
func (k Keepalived) Available() error {
	if _, err := exec.LookPath("keepalived"); err != nil {
		return fmt.Errorf("keepalived is not installed (Debian: apt-get install keepalived): %w", err)
	}
	return nil
}

// Start starts it on a node. Its program counts as alive.
func (k Keepalived) Start(node *Host) (*Process, error) {
	if err := k.Tell(node, true); err != nil {
		return nil, err
	}
	conf := k.path(node, "conf")
	if err := os.WriteFile(conf, []byte(k.config(node.index, len(node.lab.Nodes), node.Name)), 0o600); err != nil {
		return nil, err
	}
	// Those of one that was killed name processes that nobody may have waited for yet, and it would not start beside them.
	for _, suffix := range []string{"pid", "vrrp.pid"} {
		if err := os.Remove(k.path(node, suffix)); err != nil && !errors.Is(err, os.ErrNotExist) {
			return nil, err
		}
	}
	return node.Start(exec.Command("keepalived", "--dont-fork", "--log-console", "--no-syslog", "--vrrp",
		"--use-file", conf, "--pid", k.path(node, "pid"), "--vrrp_pid", k.path(node, "vrrp.pid")))
}

// Tell tells the keepalived of a node whether its program is alive.
func (k Keepalived) Tell(node *Host, alive bool) error {
	state := "1\n"
	if alive {
		state = "0\n"
	}
	return os.WriteFile(k.path(node, "state"), []byte(state), 0o600)
}

func (k Keepalived) path(node *Host, suffix string) string {
	return filepath.Join(k.Dir, node.Name+"."+suffix)
}

// config writes the configuration of one of several nodes.
func (k Keepalived) config(node, nodes int, name string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "global_defs {\n  router_id %s\n", name)
	interval := "1"
	if k.Fast {
		b.WriteString("  vrrp_version 3\n")
		interval = "0.1"
	}
	fmt.Fprintf(&b, "}\ntrack_file program {\n  file %s\n  weight 0\n}\n", filepath.Join(k.Dir, name+".state"))
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
`, id, Interface, id, 200-20*((node-i%nodes+nodes)%nodes), interval, addr, addr.BitLen())
		}
	}
	return b.String()
}
