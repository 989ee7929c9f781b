package guard

import (
	"errors"
	"fmt"
	"io"
	"os"
	"testing"
)

// A process whose file 3 is a socket of the right kind, and not the one that the variable names, is no guard.
func TestAnotherSocketIsNoProof(t *testing.T) {
	for name, right := range map[string]bool{"another": false, "the right one": true} {
		t.Run(name, func(t *testing.T) {
			conn, theirs, err := newSocketPair()
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			defer theirs.Close()
			id, err := socketID(int(theirs.Fd()))
			if err != nil {
				t.Fatal(err)
			}
			if !right {
				id++
			}
			cmd := sleeper()
			cmd.Env = append(cmd.Env, fmt.Sprintf("%s=%d:1:%d", variable, version+1, id)) // such a guard ends at once
			cmd.ExtraFiles = []*os.File{theirs}
			_, err = spawn(cmd)
			cmd.Process.Kill()
			cmd.Wait()
			if guard := errors.Is(err, io.EOF); guard != right || !guard && err != nil {
				t.Errorf("it is a guard: %v, want %v; %v", guard, right, err)
			}
		})
	}
}

// An address that somebody adds when the deadline has passed goes too.
func TestAddressAfterTheDeadline(t *testing.T) {
	n := newNetwork(t)
	h := owner(t, n)
	h.do("extend 20ms")
	n.await(false, four)
	n.await(false, six)
	h.do("add")
	n.await(true, four)
	n.await(false, four)
}
