package bench

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/flotilla-ha/flotilla/internal/netlab"
)

// addressUcarp is ucarp beside a program, with its default interval of one second. There is a
// process of it for each address. It does not look at the program. The bench ends it when the
// program dies.
type addressUcarp struct {
	lab      *netlab.Lab
	dir      string
	programs []*netlab.Process
	daemons  [][]*netlab.Process // by node and address
}

func ucarpAvailable() error {
	if _, err := exec.LookPath("ucarp"); err != nil {
		return fmt.Errorf("ucarp is not installed (Debian: apt-get install ucarp): %w", err)
	}
	return nil
}

func newAddressUcarp(lab *netlab.Lab, dir string) *addressUcarp {
	u := &addressUcarp{lab: lab, dir: dir, programs: make([]*netlab.Process, len(lab.Nodes))}
	for range lab.Nodes {
		u.daemons = append(u.daemons, make([]*netlab.Process, len(addressGroups(true))))
	}
	return u
}

func (u *addressUcarp) start(i int) (err error) {
	if !runs(u.programs[i]) {
		if u.programs[i], err = u.lab.Nodes[i].Respond(); err != nil {
			return err
		}
	}
	up, err := u.script("up", "ip address replace $2/32 dev $1")
	if err != nil {
		return err
	}
	down, err := u.script("down", "ip address delete $2/32 dev $1")
	if err != nil {
		return err
	}
	for k, group := range addressGroups(true) {
		if runs(u.daemons[i][k]) {
			continue
		}
		// The home of the address is preferred, then the next node.
		skew := (i - k + len(u.lab.Nodes)) % len(u.lab.Nodes) * 40
		u.daemons[i][k], err = u.lab.Nodes[i].Start(exec.Command("ucarp", "--interface="+netlab.Interface,
			"--srcip="+u.lab.Nodes[i].Addr4.String(), fmt.Sprintf("--vhid=%d", k+1), "--pass=bench", "--addr="+group[0].String(),
			fmt.Sprintf("--advskew=%d", skew), "--preempt", "--shutdown", "--upscript="+up, "--downscript="+down))
		if err != nil {
			return err
		}
	}
	return nil
}

// script writes a script for ucarp, which calls it with the interface and the address.
func (u *addressUcarp) script(name, command string) (string, error) {
	path := filepath.Join(u.dir, name)
	if err := os.WriteFile(path+".new", []byte("#!/bin/sh\n"+command+"\n"), 0o700); err != nil {
		return "", err
	}
	return path, os.Rename(path+".new", path) // another node may be running it
}

func (u *addressUcarp) killProgram(i int) error {
	if err := u.programs[i].Kill(syscall.SIGKILL); err != nil {
		return err
	}
	<-u.programs[i].Done()
	return u.end(i)
}

// end ends ucarp on a node.
func (u *addressUcarp) end(i int) error {
	for _, d := range u.daemons[i] {
		if err := d.Kill(syscall.SIGTERM); err != nil {
			return err
		}
		if err := d.Wait(); err != nil {
			return errors.Join(fmt.Errorf("ended with: %w", err), errors.New(d.Output()))
		}
	}
	return nil
}

func (u *addressUcarp) term(i int) error {
	if err := u.end(i); err != nil {
		return err
	}
	if err := u.programs[i].Kill(syscall.SIGTERM); err != nil {
		return err
	}
	return u.programs[i].Wait()
}

func (u *addressUcarp) stops(netlab.Running) bool { return true }

func (u *addressUcarp) leads() int { return -1 }

func (u *addressUcarp) log(i int) string {
	var all strings.Builder
	for _, d := range u.daemons[i] {
		all.WriteString(d.Output())
	}
	return all.String()
}
