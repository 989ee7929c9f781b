package freezer

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Process is a process of the machine, by /proc.
type Process struct {
	// PID is its number.
	PID int
	// Parent is the number of its parent.
	Parent int
	// Name is the name of the program, cut off after 15 bytes.
	Name string
	// Zombie is true if the process has ended and its parent has not waited for it.
	Zombie bool

	session int
}

// Table returns all processes of the machine, by their numbers.
func Table() (map[int]Process, error) {
	dirs, err := os.ReadDir("/proc")
	if err != nil {
		return nil, err
	}
	table := make(map[int]Process)
	for _, dir := range dirs {
		pid, err := strconv.Atoi(dir.Name())
		if err != nil {
			continue
		}
		name, fields, err := stat(pid)
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ESRCH) {
			continue // it has just ended
		}
		if err != nil {
			return nil, err
		}
		parent, err1 := strconv.Atoi(fields[1])
		session, err2 := strconv.Atoi(fields[3])
		if err := errors.Join(err1, err2); err != nil {
			return nil, err
		}
		table[pid] = Process{PID: pid, Parent: parent, Name: name, Zombie: fields[0] == "Z", session: session}
	}
	return table, nil
}

// startOf returns when a process started, in ticks since boot.
func startOf(pid int) (string, error) {
	_, fields, err := stat(pid)
	if err != nil {
		return "", err
	}
	return fields[19], nil
}

// stat returns the name of a process, and the fields after the name in its /proc/…/stat.
func stat(pid int) (name string, fields []string, err error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return "", nil, err
	}
	open, end := bytes.IndexByte(text, '('), bytes.LastIndexByte(text, ')')
	fields = strings.Fields(string(text[end+1:]))
	if open < 0 || len(fields) < 20 {
		return "", nil, fmt.Errorf("/proc/%d/stat is not understood", pid)
	}
	return string(text[open+1 : end]), fields, nil
}
