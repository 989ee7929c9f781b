package flotilla_test

import (
	"context"
	"flag"
	"fmt"
	"os"
	"runtime/debug"
	"syscall"
	"testing"

	"github.com/flotilla-ha/flotilla"
)

// TestMain saves two fifths of the time. It keeps the tests' directories in memory if there is room
// and nobody names another place. Tests that need a full or failing disk bring their own. It also
// leaves ML-KEM out of TLS handshakes, unless GODEBUG is set: the tests make tens of thousands of
// them, and ML-KEM is a third of the work. Packages frontend and wire test with it.
//
// The test binary is also the node of TestGuardReportsDeath.
func TestMain(m *testing.M) {
	if os.Getenv(flotilla.MemberVariable) != "" {
		if err := flotilla.RunMember(context.Background(), os.Stdin, os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	const memory, room = "/dev/shm", 2 << 30 // bytes
	var fs syscall.Statfs_t
	if os.Getenv("TMPDIR") == "" && syscall.Statfs(memory, &fs) == nil && int64(fs.Bavail)*fs.Bsize >= room {
		os.Setenv("TMPDIR", memory)
	}
	if os.Getenv("GODEBUG") == "" {
		os.Setenv("GODEBUG", "tlsmlkem=0,tlssecpmlkem=0")
	}
	flag.Parse()
	if bench := flag.Lookup("test.bench"); bench.Value.String() == "" {
		debug.SetGCPercent(400) // there is little to collect, and much is allocated
	}
	os.Exit(m.Run())
}
