package bench

import (
	"errors"
	"fmt"
	"net/netip"
	"syscall"

	"github.com/flotilla-ha/flotilla"
	"github.com/flotilla-ha/flotilla/internal/netlab"
	"github.com/flotilla-ha/flotilla/internal/netlab/labnode"
)

// addressFlotilla is a program that uses flotilla.
type addressFlotilla struct {
	cluster  labnode.Cluster
	programs []*netlab.Process
}

func newAddressFlotilla(lab *netlab.Lab, dir string, timing flotilla.Timing) *addressFlotilla {
	var units labnode.Units
	for _, group := range addressGroups(false) {
		var unit []netip.Prefix
		for _, a := range group {
			bits := 24
			if a.Is6() {
				bits = 64
			}
			unit = append(unit, netip.PrefixFrom(a, bits))
		}
		units = append(units, unit)
	}
	return &addressFlotilla{
		cluster:  labnode.Cluster{Lab: lab, Dir: dir, Timing: timing, Units: units, Steps: *stepsFlag},
		programs: make([]*netlab.Process, len(lab.Nodes)),
	}
}

func (f *addressFlotilla) start(i int) (err error) {
	if !runs(f.programs[i]) {
		f.programs[i], err = f.cluster.Start(i)
	}
	return err
}

func (f *addressFlotilla) killProgram(i int) error { return f.programs[i].Kill(syscall.SIGKILL) }

func (f *addressFlotilla) term(i int) error {
	if err := f.programs[i].Kill(syscall.SIGTERM); err != nil {
		return err
	}
	if err := f.programs[i].Wait(); err != nil {
		return errors.Join(fmt.Errorf("ended with: %w", err), errors.New(f.programs[i].Output()))
	}
	return nil
}

// stops leaves out the guard: only the program is stopped.
func (f *addressFlotilla) stops(r netlab.Running) bool { return !labnode.IsGuard(r) }

func (f *addressFlotilla) leads() int {
	for i := range f.programs {
		if l := f.cluster.Leader(i); l >= 0 {
			return l
		}
	}
	return -1
}

func (f *addressFlotilla) log(i int) string { return f.programs[i].Output() }
