package acmetest

import (
	"fmt"
	"os"
	"testing"
)

// nodeEnv makes a process of this test's binary a node.
const nodeEnv = "FLOTILLA_ACMETEST_NODE"

func TestMain(m *testing.M) {
	if os.Getenv(nodeEnv) != "" {
		os.Exit(nodeMain())
	}
	// Pebble is made to be hard on its clients: it waits at random, refuses good nonces, skips proofs that it has seen before.
	// This is where it is told not to; it reads these when it is made.
	for name, value := range map[string]string{
		"PEBBLE_VA_NOSLEEP":      "1",
		"PEBBLE_WFE_NONCEREJECT": "0",
		"PEBBLE_AUTHZREUSE":      "0",
		"PEBBLE_VA_ALWAYS_VALID": "0",
	} {
		if err := os.Setenv(name, value); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	os.Exit(m.Run())
}
