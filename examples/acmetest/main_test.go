package acmetest

import (
	"os"
	"testing"
)

// nodeEnv makes a process of this test's binary a node.
const nodeEnv = "FLOTILLA_ACMETEST_NODE"

func TestMain(m *testing.M) {
	if os.Getenv(nodeEnv) != "" {
		os.Exit(nodeMain())
	}
	os.Exit(m.Run())
}
