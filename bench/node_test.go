//go:build unix

package bench

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/flotilla-ha/flotilla"
	"github.com/flotilla-ha/flotilla/bench/internal/proc"
	"github.com/flotilla-ha/flotilla/internal/netlab"
	"github.com/flotilla-ha/flotilla/internal/netlab/labnode"
	"github.com/flotilla-ha/flotilla/internal/netlab/steps"
)

// stepsVariable is the environment variable that has a node log all steps of a fail-over.
const stepsVariable = "BENCH_STEPS"

func TestMain(m *testing.M) {
	netlab.Main()
	labnode.Main()
	if role := os.Getenv(proc.RoleVariable); role != "" {
		run := runNode
		switch role {
		case "flotilla":
			run = runFlotilla
		case "plain":
			run = runPlain
		case "slow":
			run = runSlow
		case "slow disk":
			run = runSlowDisk
		case "thief":
			run = runThief
		case "observer":
			run = runObserver
		case "exchange":
			run = runExchange
		}
		if err := run(context.Background()); err != nil {
			fmt.Println("error", err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// vitals are figures that a node process reports about itself.
type vitals struct {
	flotilla.Status
	CPU      time.Duration // used so far, user and system
	Resident int64         // bytes in memory; 0 where the system does not say
}

// runNode is a node in its own process. It answers each line of its standard input by a line on its
// standard output, and ends with the input.
func runNode(ctx context.Context) error {
	cfg, err := flotilla.ConfigFromEnv()
	if err != nil {
		return err
	}
	if os.Getenv(stepsVariable) != "" {
		cfg.Logger = steps.Logger(os.Stderr)
	}
	n, err := flotilla.Open(ctx, cfg)
	if err != nil {
		return err
	}
	defer n.Close()
	in, growth := bufio.NewScanner(os.Stdin), growthNode{node: n}
	for in.Scan() {
		word, rest, _ := strings.Cut(in.Text(), " ")
		switch word {
		case "ready":
			err = n.Ready(ctx)
			fmt.Println("ok")
		case "store":
			err = n.Storage().Store(ctx, rest, make([]byte, valueSize))
			fmt.Println("ok")
		case "hold": // until the process ends
			held := make(chan error, 1)
			go func() {
				held <- n.Hold(ctx, flotilla.Role{Name: rest}, func(ctx context.Context, t flotilla.Tenure) error {
					held <- nil
					<-ctx.Done()
					return nil
				})
			}()
			err = <-held
			fmt.Println("ok")
		case "vitals":
			var use syscall.Rusage
			err = syscall.Getrusage(syscall.RUSAGE_SELF, &use)
			v := vitals{Status: n.Status(), CPU: time.Duration(use.Utime.Nano() + use.Stime.Nano())}
			v.Resident = residentBytes()
			v.Roles = nil // which may be many
			line, jsonErr := json.Marshal(v)
			if err == nil {
				err = jsonErr
			}
			fmt.Println(string(line))
		default:
			var answer string
			if answer, err = growth.do(ctx, word, rest); err == nil {
				fmt.Println(answer)
			}
		}
		if err != nil {
			return fmt.Errorf("%s: %w", word, err)
		}
	}
	return in.Err()
}

// process is a node in its own process. One goroutine at a time asks it.
type process struct{ *proc.Process }

// newProcesses prepares n nodes that will form a cluster, and starts none.
func newProcesses(b *testing.B, n int) []*process {
	b.Helper()
	nodes, _, err := proc.NewCluster(n, b.TempDir())
	if err != nil {
		b.Fatal(err)
	}
	var all []*process
	for _, n := range nodes {
		b.Cleanup(n.Kill)
		all = append(all, &process{n})
	}
	return all
}

func (p *process) start(b *testing.B) {
	b.Helper()
	if err := p.Start(); err != nil {
		b.Fatal(err)
	}
}

// awaitReady waits until all nodes are ready.
func awaitReady(b *testing.B, all []*process) {
	b.Helper()
	for _, p := range all {
		if _, err := p.Ask("ready"); err != nil {
			b.Fatal(err)
		}
	}
}

func (p *process) vitals(b *testing.B) vitals {
	b.Helper()
	line, err := p.Ask("vitals")
	if err != nil {
		b.Fatal(err)
	}
	var v vitals
	if err := json.Unmarshal([]byte(line), &v); err != nil {
		b.Fatal(err)
	}
	return v
}

// leaderOf waits until all nodes agree on a leader, and returns its number.
func leaderOf(b *testing.B, all []*process) int {
	b.Helper()
	for deadline := time.Now().Add(readyTimeout); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		leader, agree := -1, 0
		var id string
		for i, p := range all {
			v := p.vitals(b)
			if i == 0 {
				id = v.Leader
			}
			if v.Leader == id && v.Ready {
				agree++
			}
			if v.ID == id {
				leader = i
			}
		}
		if leader >= 0 && agree == len(all) {
			return leader
		}
	}
	b.Fatal("the nodes agree on no leader")
	return -1
}
