package durable

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/flotilla-ha/flotilla/internal/durable/diskfile"
	"github.com/flotilla-ha/flotilla/internal/durable/journal"
	"github.com/flotilla-ha/flotilla/internal/durable/snapstore"
)

// Names in a data directory.
const (
	lockName    = "lock"
	logName     = "raft.db"
	snapsName   = snapstore.DirName
	markName    = "applied"
	asidePrefix = "set-aside-"
	tmpSuffix   = diskfile.TmpSuffix
)

// AsideName returns the name of a directory for SetAside.
func AsideName(t time.Time) string { return asidePrefix + t.UTC().Format("20060102-150405.000") }

// isAside reports whether a name in the directory is one of AsideName.
func isAside(name string) bool { return strings.HasPrefix(name, asidePrefix) }

// isLog reports whether a file is a part of the raft log.
func isLog(name string) bool {
	_, ok := journal.NumberOf(name)
	return ok || name == logName
}

// checkName reports whether a small file may have a name.
func checkName(name string) error {
	taken := []string{"", ".", "..", lockName, snapsName, markName}
	if isLog(name) || slices.Contains(taken, name) || filepath.Base(name) != name || strings.HasSuffix(name, tmpSuffix) {
		return fmt.Errorf("no name for a small file: %q", name)
	}
	return nil
}
