package bench

import (
	"errors"
	"fmt"
	"syscall"
	"time"

	"github.com/flotilla-ha/flotilla"
	"github.com/flotilla-ha/flotilla/internal/netlab"
	"github.com/flotilla-ha/flotilla/internal/netlab/keepalived"
)

// addressKind is a system that BenchmarkAddresses can run.
type addressKind struct {
	name      string
	only4     bool // it has no IPv6 addresses
	available func() error
	open      func(lab *netlab.Lab, dir string) addressSystem
}

func addressSystems() []addressKind {
	withKeepalived := func(name string, interval time.Duration) addressKind {
		return addressKind{
			name:      name,
			available: keepalived.Available,
			open: func(lab *netlab.Lab, dir string) addressSystem {
				n := len(lab.Nodes)
				return &addressKeepalived{
					lab:      lab,
					setup:    keepalived.Setup{Lab: lab, Dir: dir, Interval: interval, Addrs: addressGroups(false)},
					programs: make([]*netlab.Process, n),
					daemons:  make([]*netlab.Process, n),
				}
			},
		}
	}
	nodes := func(name string, timing flotilla.Timing) addressKind {
		return addressKind{
			name:      name,
			available: func() error { return nil },
			open:      func(lab *netlab.Lab, dir string) addressSystem { return newAddressFlotilla(lab, dir, timing) },
		}
	}
	return []addressKind{
		withKeepalived("keepalived", 0),
		withKeepalived("keepalived-100ms", 100*time.Millisecond),
		withKeepalived("keepalived-10ms", 10*time.Millisecond),
		{
			name: "ucarp", only4: true, available: ucarpAvailable,
			open: func(lab *netlab.Lab, dir string) addressSystem { return newAddressUcarp(lab, dir) },
		},
		nodes("flotilla-lan", flotilla.LAN),
		nodes("flotilla-fast", flotilla.Fast),
		nodes("flotilla-turbo", flotilla.Turbo),
	}
}

// addressKeepalived is keepalived beside a program. It learns at once when the program dies, and is
// ended before the program.
type addressKeepalived struct {
	lab               *netlab.Lab
	setup             keepalived.Setup
	programs, daemons []*netlab.Process
}

func (k *addressKeepalived) start(i int) (err error) {
	node := k.lab.Nodes[i]
	if !runs(k.programs[i]) {
		if k.programs[i], err = node.Respond(); err != nil {
			return err
		}
	}
	if !runs(k.daemons[i]) {
		k.daemons[i], err = k.setup.Start(i)
		return err
	}
	return k.setup.SetAlive(i, true)
}

// runs returns true if a process was started and has not ended.
func runs(p *netlab.Process) bool {
	if p == nil {
		return false
	}
	select {
	case <-p.Done():
		return false
	default:
		return true
	}
}

func (k *addressKeepalived) killProgram(i int) error {
	if err := k.programs[i].Kill(syscall.SIGKILL); err != nil {
		return err
	}
	<-k.programs[i].Done()
	return k.setup.SetAlive(i, false)
}

func (k *addressKeepalived) term(i int) error {
	for _, p := range []*netlab.Process{k.daemons[i], k.programs[i]} {
		if err := p.Kill(syscall.SIGTERM); err != nil {
			return err
		}
		if err := p.Wait(); err != nil {
			return errors.Join(fmt.Errorf("ended with: %w", err), errors.New(p.Output()))
		}
	}
	return nil
}

func (k *addressKeepalived) stops(netlab.Running) bool { return true }

func (k *addressKeepalived) leads() int { return -1 }

func (k *addressKeepalived) log(i int) string { return k.daemons[i].Output() }
