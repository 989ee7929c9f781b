package snapstore

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/flotilla-ha/flotilla/internal/durable/diskfile"
)

// Names of files and directories, as raft gives them.
const (
	DirName   = "snapshots" // in the data directory
	StateName = "state.bin" // the content, behind a preamble
	MetaName  = "meta.json" // the description
)

// name is what raft puts into the name of a snapshot's directory.
type name struct {
	term, index, ms uint64
	id              string // the name itself
}

// list returns the snapshots in a directory, newest first as raft orders them, and the names of
// those that were left unfinished.
func list(dir string) (names []name, unfinished []string, err error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, nil, fmt.Errorf("list snapshots: %w", err)
	}
	for _, e := range entries {
		if !e.IsDir() {
			continue
		}
		if strings.HasSuffix(e.Name(), diskfile.TmpSuffix) {
			unfinished = append(unfinished, e.Name())
			continue
		}
		n, err := parseName(e.Name())
		if err != nil {
			return nil, nil, diskfile.Named(filepath.Join(dir, e.Name()), err)
		}
		names = append(names, n)
	}
	slices.SortFunc(names, older)
	return names, unfinished, nil
}

func parseName(id string) (name, error) {
	n := name{id: id}
	_, err := fmt.Sscanf(id, "%d-%d-%d", &n.term, &n.index, &n.ms)
	if err != nil || id != fmt.Sprintf("%d-%d-%d", n.term, n.index, n.ms) {
		return n, diskfile.Damaged("it is not the name of a snapshot")
	}
	return n, nil
}

// older compares two names so that the newest comes first.
func older(a, b name) int {
	for _, p := range [][2]uint64{{b.term, a.term}, {b.index, a.index}, {b.ms, a.ms}} {
		if p[0] != p[1] {
			if p[0] < p[1] {
				return -1
			}
			return 1
		}
	}
	return 0
}
