package netlab

import (
	"errors"
	"fmt"
	"net"
	"os"
	"slices"

	"github.com/flotilla-ha/flotilla/internal/netlab/frame"
	"github.com/flotilla-ha/flotilla/internal/netlab/freezer"
	"github.com/flotilla-ha/flotilla/internal/netlab/namespace"
)

// Available returns nil if a laboratory can be made here. Otherwise its error is one sentence that
// says why not.
func Available() error {
	if os.Geteuid() != 0 {
		return errors.New("a laboratory of network namespaces needs root")
	}
	ns, err := namespace.New()
	if err != nil {
		return fmt.Errorf("a laboratory of network namespaces needs permission to make them: %w", err)
	}
	return ns.Close()
}

// Lab is a few hosts and the bridge that connects them.
type Lab struct {
	// Nodes run the programs under test.
	Nodes []*Host
	// Clients watch. Their instruments run in the process of the test.
	Clients []*Host

	bridge *namespace.Namespace
	links  []*link // of all hosts
	groups *freezer.Groups
	faults *faults
}

// New makes a lab with so many nodes and clients. It takes some tens of milliseconds.
func New(nodes, clients int) (*Lab, error) { return newLab(nodes, clients, 0) }

// newLab makes a lab with one kind of freezer; 0 is the best that there is.
func newLab(nodes, clients int, kind freezer.Kind) (*Lab, error) {
	if nodes < 0 || clients < 0 || nodes+clients == 0 || nodes > 80 || clients > 80 {
		return nil, fmt.Errorf("a lab needs 1 to 80 nodes or clients, not %d nodes and %d clients", nodes, clients)
	}
	groups, err := freezer.New(kind)
	if err != nil {
		return nil, err
	}
	l := &Lab{groups: groups}
	if err := l.build(nodes, clients); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}

func (l *Lab) build(nodes, clients int) error {
	ids := identities(nodes, clients)
	if err := l.connect(ids); err != nil {
		return err
	}
	var ports []int
	for _, k := range l.links {
		ports = append(ports, k.port.Attrs().Index)
	}
	var err error
	if l.faults, err = newFaults(l.bridge, ports); err != nil {
		return err
	}
	for i, id := range ids {
		group, err := l.groups.Add(id.name)
		if err != nil {
			return fmt.Errorf("%s: %w", id.name, err)
		}
		h := newHost(id, i, l.links[i], l.faults, group)
		if i < nodes {
			l.Nodes = append(l.Nodes, h)
		} else {
			l.Clients = append(l.Clients, h)
		}
	}
	return nil
}

// connect makes the bridge and the links to it.
func (l *Lab) connect(ids []identity) (err error) {
	if l.bridge, err = namespace.New(); err != nil {
		return err
	}
	br, err := addBridge(l.bridge)
	if err != nil {
		return err
	}
	for _, id := range ids {
		k, err := newLink(l.bridge, br, id)
		if err != nil {
			return err
		}
		l.links = append(l.links, k)
	}
	for _, k := range l.links {
		if err := k.await(); err != nil {
			return err
		}
	}
	return nil
}

// hosts returns nodes, then clients.
func (l *Lab) hosts() []*Host { return slices.Concat(l.Nodes, l.Clients) }

// ownerName returns the name of the host with a hardware address, or the address if it is unknown.
func (l *Lab) ownerName(mac frame.MAC) string {
	for _, h := range l.hosts() {
		if frame.MAC(h.MAC) == mac {
			return h.Name
		}
	}
	return net.HardwareAddr(mac[:]).String()
}

// Close kills every process that was started in the lab and its descendants, waits for them, and
// removes everything else. Close watchers and probes before.
func (l *Lab) Close() error {
	var errs []error
	for _, h := range l.hosts() {
		errs = append(errs, h.programs.close())
	}
	for _, k := range l.links {
		errs = append(errs, k.close())
	}
	if l.faults != nil {
		errs = append(errs, l.faults.close())
	}
	if l.bridge != nil {
		errs = append(errs, l.bridge.Close())
	}
	return errors.Join(errs...)
}
