package rights

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// Capability is a capability of Linux, see capabilities(7).
type Capability int

// These are the capabilities that floating addresses need.
const (
	// NetAdmin allows a process to change the network's configuration.
	NetAdmin Capability = unix.CAP_NET_ADMIN

	// NetRaw allows a process to use raw and packet sockets.
	NetRaw Capability = unix.CAP_NET_RAW
)

// String returns the capability's name without the prefix CAP_.
func (c Capability) String() string {
	switch c {
	case NetAdmin:
		return "NET_ADMIN"
	case NetRaw:
		return "NET_RAW"
	}
	return fmt.Sprintf("capability %d", int(c))
}

// Missing returns those of needs that are not in the effective set of this process. It returns none
// if the set cannot be read.
func Missing(needs ...Capability) (missing []Capability) {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		return nil
	}
	for _, c := range needs {
		if data[c/32].Effective&(1<<(c%32)) == 0 {
			missing = append(missing, c)
		}
	}
	return missing
}

// Explain returns an error that says "cannot", then what, then the reason. It wraps err, and is nil
// if err is nil. needs are the capabilities that the action needs.
func Explain(what string, err error, needs ...Capability) error {
	if err == nil {
		return nil
	}
	if why := Why(err, needs...); why != "" {
		return fmt.Errorf("cannot %s: %s: %w", what, why, err)
	}
	return fmt.Errorf("cannot %s: %w", what, err)
}

// Why returns the reason for err, and the remedy, if err is os.ErrPermission. Otherwise it returns
// an empty string. needs are the capabilities that the action needs.
func Why(err error, needs ...Capability) string {
	if !errors.Is(err, os.ErrPermission) {
		return ""
	}
	if missing := Missing(needs...); len(missing) > 0 {
		return lack(missing)
	}
	name := "refused"
	for _, errno := range []syscall.Errno{unix.EPERM, unix.EACCES} {
		if errors.Is(err, errno) {
			name = unix.ErrnoName(errno)
		}
	}
	var has []string
	for _, c := range needs {
		has = append(has, c.String())
	}
	return fmt.Sprintf("the kernel refuses it (%s) although this process has the capability %s: "+
		"either a filter of system calls (seccomp) or a security module (AppArmor, SELinux) forbids it, "+
		"or the network namespace belongs to another user namespace", name, strings.Join(has, " and "))
}

// lack names missing capabilities and how to give them.
func lack(missing []Capability) string {
	var names, systemd, docker, file []string
	for _, c := range missing {
		names = append(names, c.String())
		systemd = append(systemd, "CAP_"+c.String())
		docker = append(docker, "--cap-add "+c.String())
		file = append(file, "cap_"+strings.ToLower(c.String()))
	}
	noun := "the capability "
	if len(missing) > 1 {
		noun = "the capabilities "
	}
	return fmt.Sprintf("this process lacks %s "+
		"(systemd: AmbientCapabilities=%s; docker: %s, or cap_add in compose; or setcap %s+ep on the program)",
		noun+strings.Join(names, " and "), strings.Join(systemd, " "), strings.Join(docker, " "), strings.Join(file, ","))
}
