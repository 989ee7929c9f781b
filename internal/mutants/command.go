package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"time"
)

const (
	noMutant    = 0
	testTimeout = 3 * time.Minute // for the test of one mutant
)

// run runs a command with one mutant in force and returns its output.
func run(ctx context.Context, dir string, id int, name string, args ...string) (out string, err error) {
	var b bytes.Buffer
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = dir, &b, &b
	cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%d", variable, id))
	cmd.WaitDelay = 10 * time.Second // processes left by a failed test keep the pipe open
	err = cmd.Run()
	return b.String(), err
}

// pattern returns the value of -run that chooses one test, or one subtest, and no other.
func pattern(test string) string { return "^" + strings.ReplaceAll(test, "/", "$/^") + "$" }

// failed returns the names of the tests that failed, by their output. A name says so if the whole
// process ended with the test.
func failed(out string) (names []string) {
	running := ""
	for line := range strings.Lines(out) {
		if name, ok := strings.CutPrefix(line, "=== RUN   "); ok {
			running = strings.TrimSpace(name)
		}
		if name, ok := strings.CutPrefix(line, "--- FAIL: "); ok {
			name, _, _ = strings.Cut(name, " ")
			names = append(names, name)
		}
		if strings.HasPrefix(line, "panic: ") || strings.HasPrefix(line, "fatal error: ") {
			names = append(names, running+" ("+strings.TrimSpace(line)+")")
		}
	}
	return names
}

func firstLines(out string) string {
	lines := strings.Split(strings.TrimSpace(out), "\n")
	return strings.Join(lines[:min(6, len(lines))], "\n\t")
}
