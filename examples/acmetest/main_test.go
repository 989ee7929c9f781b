package acmetest

import (
	"os"
	"testing"
)

// nodeEnv is the environment variable that makes a process of the test binary a node.
const nodeEnv = "FLOTILLA_ACMETEST_NODE"

func TestMain(m *testing.M) {
	if os.Getenv(nodeEnv) != "" {
		os.Exit(nodeMain())
	}
	os.Exit(m.Run())
}
