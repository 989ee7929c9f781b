package flotilla_test

import (
	"flag"
	"os"
	"runtime/debug"
	"syscall"
	"testing"
)

// TestMain saves a third of the time. It keeps the tests' directories in memory if there is room
// and nobody names another place. Tests that need a full or failing disk bring their own.
func TestMain(m *testing.M) {
	const memory, room = "/dev/shm", 2 << 30 // bytes
	var fs syscall.Statfs_t
	if os.Getenv("TMPDIR") == "" && syscall.Statfs(memory, &fs) == nil && int64(fs.Bavail)*fs.Bsize >= room {
		os.Setenv("TMPDIR", memory)
	}
	flag.Parse()
	if bench := flag.Lookup("test.bench"); bench.Value.String() == "" {
		debug.SetGCPercent(400) // there is little to collect, and much is allocated
	}
	os.Exit(m.Run())
}
