// Package freezer starts processes in groups, lists them, and stops and kills them together.
//
// A group contains the processes that were started in it and all their descendants. Control groups
// do this exactly. Where there are none, [Signals] does it nearly.
//
// [New] also removes the groups that a killed process has left, with everything that runs in them.
//
// The package needs Linux and root. Elsewhere only its types exist.
package freezer

import (
	"errors"
	"os/exec"
)

// Kind is the mechanism that freezes processes.
type Kind int

const (
	// CgroupV2 is the freezer of the unified hierarchy of control groups.
	CgroupV2 Kind = iota + 1
	// CgroupV1 is the freezer with a hierarchy of its own.
	CgroupV1
	// Signals sends SIGSTOP to one process after another. The processes notice it, and do not stop
	// at the same instant. A process that leaves its session and outlives its parent is lost.
	// Signals is for machines without control groups.
	Signals
)

// String returns the name of the mechanism.
func (k Kind) String() string {
	return [...]string{"none", "cgroup v2", "cgroup v1", "signals"}[k]
}

// ErrUnavailable is the error of [New] if the machine does not have the mechanism.
var ErrUnavailable = errors.New("this machine has no such freezer")

// Group contains processes. Its methods are safe for concurrent use.
type Group interface {
	// Start starts a command in the group. The caller must have locked its goroutine to its thread:
	// a command starts in the network namespace of the thread, and control groups of version 1 move
	// it.
	Start(cmd *exec.Cmd) error
	// Freeze stops all processes. It returns when they have stopped, except with Signals.
	Freeze() error
	// Thaw continues all processes.
	Thaw() error
	// PIDs returns the numbers of the processes in ascending order.
	PIDs() ([]int, error)
	// Remove kills all processes. It returns when they are gone.
	Remove() error
}
