package alerts_test

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/flotilla-ha/flotilla"
)

// fleet is a cluster of processes.
type fleet struct {
	*testing.T
	dir      string
	settings []map[string]any
	stop     []func()
}

// start starts a program on a node.
func (f *fleet) start(i int, program string) {
	f.Helper()
	line, err := json.Marshal(f.settings[i])
	if err != nil {
		f.Fatal(err)
	}
	log, err := os.OpenFile(filepath.Join(f.dir, fmt.Sprint("log", i)), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		f.Fatal(err)
	}
	defer log.Close()
	cmd := exec.Command(program)
	cmd.Stdout, cmd.Stderr = log, log
	in, err := cmd.StdinPipe() // the node ends with it
	if err == nil {
		err = cmd.Start()
	}
	if err == nil {
		_, err = in.Write(append(line, '\n'))
	}
	if err != nil {
		f.Fatal(err)
	}
	f.stop[i] = func() {
		cmd.Process.Signal(syscall.SIGTERM)
		if err := cmd.Wait(); err != nil {
			f.Errorf("node %d: %v", i, err)
		}
	}
}

// Two versions of flotilla in a cluster are an alert when they stay. The same program is built with
// its version, which comes from the repository, and without.
func TestVersionsDiffer(t *testing.T) {
	if !*long {
		t.Skip("it takes minutes: it runs with -long")
	}
	t.Parallel()
	command(t, "prometheus")
	dir := t.TempDir()
	plain, stamped := filepath.Join(dir, "plain"), filepath.Join(dir, "stamped")
	for program, stamp := range map[string]string{plain: "false", stamped: "true"} {
		cmd := exec.Command("go", "build", "-buildvcs="+stamp, "-o", program, "github.com/flotilla-ha/flotilla/internal/mixed/node")
		if out, err := cmd.CombinedOutput(); err != nil {
			if stamp == "true" {
				t.Skipf("a program with a version is built in a git repository: %v\n%s", err, out)
			}
			t.Fatalf("%v\n%s", err, out)
		}
	}
	f := &fleet{T: t, dir: dir, stop: make([]func(), 3)}
	secret := flotilla.NewSecret().Encode()
	addrs := free(t, 7)
	peers, targets := addrs[:3], addrs[3:6]
	for i := range f.stop {
		f.settings = append(f.settings, map[string]any{
			"Name": fmt.Sprint("n", i), "Dir": filepath.Join(dir, fmt.Sprint("n", i)), "Secret": secret, "Peers": peers,
			"Addr": peers[i], "HTTPS": "127.0.0.1:0", "HTTP": "127.0.0.1:0", "Health": targets[i], "Domain": "versions.test", "LAN": true,
		})
		f.start(i, plain)
	}
	t.Cleanup(func() {
		for _, stop := range f.stop {
			stop()
		}
		if t.Failed() {
			for i := range f.stop {
				if log, err := os.Open(filepath.Join(dir, fmt.Sprint("log", i))); err == nil {
					io.Copy(t.Output(), log)
					log.Close()
				}
			}
		}
	})
	s := &site{T: t, prom: serve(t, setting{rules: faster(t, text(t), map[string]string{"for: 1d": "for: 10m"}), targets: targets, listen: addrs[6]})}
	s.until("all are ready", time.Minute, func() bool {
		_, most := s.prom.samples("sum(flotilla_ready)")
		return most == 3
	})
	s.calm(5 * time.Second)
	restart := func(program string) func(*site) {
		return func(*site) {
			f.stop[2]()
			f.start(2, program)
		}
	}
	t.Log(proof{alert: "FlotillaVersionsDiffer", fault: restart(stamped), mend: restart(plain)}.prove(s))
}
