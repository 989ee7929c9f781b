package guard

import (
	"errors"
	"fmt"
	"io"
	"os"
	"testing"
)

// A process is not a guard if its file 3 is a socket of the right kind but not the one that the
// variable names.
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
			// A guard of another version ends at once.
			cmd.Env = append(cmd.Env, fmt.Sprintf("%s=%d:1:%d:%s", variable, version+1, id, Notices))
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
