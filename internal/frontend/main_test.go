package frontend

import (
	"flag"
	"os"
	"testing"

	"github.com/flotilla-ha/flotilla/internal/parallel"
)

func TestMain(m *testing.M) {
	flag.Parse()
	parallel.Tests(12)
	os.Exit(m.Run())
}
