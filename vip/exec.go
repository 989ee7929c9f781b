package vip

import (
	"bytes"
	"context"
	"fmt"
	"os/exec"
	"strconv"
	"strings"
	"time"
)

// Exec returns a Func that runs a program. The arguments are args, then "bind" or "unbind", then
// the addresses, such as "192.0.2.100/24". The environment also has VIP_NAME and VIP_FENCE, the
// role's name and the tenure's fence. If the program fails, the error contains what it wrote to its
// standard error. The program is killed when the role is lost.
func Exec(path string, args ...string) Func {
	run := func(ctx context.Context, action string, m Move) error {
		argv := append(append([]string(nil), args...), action)
		for _, a := range m.Addrs {
			argv = append(argv, a.String())
		}
		cmd := exec.CommandContext(ctx, path, argv...)
		cmd.Env = append(cmd.Environ(), "VIP_NAME="+m.Name, "VIP_FENCE="+strconv.FormatUint(m.Fence, 10))
		cmd.WaitDelay = time.Second
		var stderr bytes.Buffer
		cmd.Stderr = &head{&stderr}
		if err := cmd.Run(); err != nil {
			said := strings.TrimSpace(strings.ToValidUTF8(stderr.String(), ""))
			return fmt.Errorf("%s %s: %w: %s", path, action, err, said)
		}
		return nil
	}
	return Func{
		Bind:   func(ctx context.Context, m Move) error { return run(ctx, "bind", m) },
		Unbind: func(ctx context.Context, m Move) error { return run(ctx, "unbind", m) },
	}
}

// head keeps the first kilobyte that a program writes.
type head struct{ b *bytes.Buffer }

// Write implements io.Writer.
func (h *head) Write(p []byte) (int, error) {
	if room := 1<<10 - h.b.Len(); room > 0 {
		h.b.Write(p[:min(room, len(p))])
	}
	return len(p), nil
}
