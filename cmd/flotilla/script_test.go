package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"maps"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/testscript"

	"github.com/flotilla-ha/flotilla"
	"github.com/flotilla-ha/flotilla/clustertest"
	"github.com/flotilla-ha/flotilla/cmd/flotilla/internal/term"
	"github.com/flotilla-ha/flotilla/internal/synctest"
	"github.com/flotilla-ha/flotilla/internal/testfiles"
)

// TestScripts runs the scripts in testdata/script, each in a bubble of its own: the command, the
// nodes and the network between them are in this process, and time is virtual. Besides the commands
// of testscript they have those below. The file secret holds a secret, damaged most of it, and two
// both it and another text.
//
//	flotilla ARGS...        run the command; it must exit with 0
//	exits CODE ARGS...      run the command; it must exit with CODE
//	input FILE              give the next run a standard input
//	watched on|off          a person watches the output of the runs that follow
//	start ARGS...           start the command
//	ended CODE              it must have ended by now, with CODE
//	interrupt CODE          interrupt it; it must exit with CODE
//	narrow                  the last output has no line of more than 80 columns
//	cluster N [LIMIT]       start nodes n0, n1 …, which all vote; set FLOTILLA_SECRETS,
//	                        FLOTILLA_PEERS, $LEADER, $FOLLOWER, $OTHER, and $ID_n0, $DIR_n0 …;
//	                        the last has another MaxState; they read their secrets from the files
//	                        secrets_n0 …
//	node DO NAME [LIMIT]    kill, stop, restart or isolate a node, or heal the network
//	await                   wait until all nodes are ready and agree on a leader
//	leads NAME              the node leads
//	elapse TIME             let time go by
//	latency TIME            let each message take that long
//	hold ROLE NAME N [TIME] let a node hold a role with priority N; giving it up takes TIME
//	store NAME KEY VALUE    store a record through a node
//	stored NAME DIR         a node has the records of a directory, and no other
//	append FILE FILE        append a file to another
//	same DIR DIR            both directories have the same files
//	certificate DIR SITE [TIME]
//	                        write the files of a certificate, which lasts so long
//	account DIR EMAIL       write the files of an ACME account
//	seal KEYFILE DIR DIR    seal all files of a directory as objects of an S3 storage
//	fill FILE N [TEXT]      write a file of N bytes: blanks, and TEXT at the end
//
// There are no real sockets in a bubble. Scripts that need them are in testdata/program.
//
// With -update, files that "cmp" finds different are written into the scripts.
func TestScripts(t *testing.T) {
	if testing.Short() {
		t.Skip("a slow test: it runs without -short")
	}
	files, err := filepath.Glob("testdata/script/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatalf("there are no scripts: %v", err)
	}
	for _, file := range files {
		file, err := filepath.Abs(file) // the script changes the directory
		if err != nil {
			t.Fatal(err)
		}
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := &script{t: t}
				testscript.RunT(inBubble{t}, testscript.Params{
					Files:              []string{file},
					Setup:              s.setup,
					Cmds:               s.commands(),
					UpdateScripts:      *update,
					RequireUniqueNames: true,
				})
			})
		})
	}
}

var update = flag.Bool("update", false, "write what is printed into the scripts")

// inBubble runs a script in the bubble that it was made in, where neither subtests nor parallel
// tests are possible.
type inBubble struct{ *testing.T }

func (t inBubble) Run(_ string, f func(testscript.T)) { f(t) }
func (t inBubble) Parallel()                          {}
func (t inBubble) Verbose() bool                      { return testing.Verbose() }

// script is the state of one script.
type script struct {
	t       *testing.T
	cluster *clustertest.Cluster
	secret  string // must never be printed
	input   string
	watched bool

	cancel context.CancelFunc // interrupts what was started
	done   chan said
}

func (s *script) setup(env *testscript.Env) error {
	s.secret = flotilla.NewSecret().Encode()
	writeFiles(s.t, env.WorkDir, map[string]string{
		"secret":  s.secret + "\n",
		"damaged": s.secret[:len(s.secret)-1],
		"two":     s.secret + " flt1_x",
	})
	s.t.Chdir(env.WorkDir)
	return nil
}

func (s *script) commands() map[string]func(ts *testscript.TestScript, neg bool, args []string) {
	all := make(map[string]func(ts *testscript.TestScript, neg bool, args []string))
	for name, c := range map[string]struct {
		least, most int // arguments
		run         func(ts *testscript.TestScript, args []string)
	}{
		"flotilla":  {0, 20, func(ts *testscript.TestScript, args []string) { s.run(ts, 0, args) }},
		"exits":     {1, 20, func(ts *testscript.TestScript, args []string) { s.run(ts, number(ts, args[0]), args[1:]) }},
		"input":     {1, 1, func(ts *testscript.TestScript, args []string) { s.input = ts.ReadFile(args[0]) }},
		"watched":   {1, 1, func(_ *testscript.TestScript, args []string) { s.watched = args[0] == "on" }},
		"start":     {1, 20, s.start},
		"ended":     {1, 1, s.ended},
		"interrupt": {1, 1, s.interrupt},
		"narrow":    {0, 0, s.narrow},
		"cluster":   {1, 2, s.startCluster},
		"node":      {1, 3, s.node},
		"await":     {0, 0, func(*testscript.TestScript, []string) { s.cluster.Settle() }},
		"leads":     {1, 1, s.leads},
		"elapse":    {1, 1, func(ts *testscript.TestScript, args []string) { time.Sleep(duration(ts, args[0])) }},
		"latency":   {1, 1, func(ts *testscript.TestScript, args []string) { s.cluster.SetLatency(duration(ts, args[0])) }},
		"hold":      {3, 4, s.hold},
		"store":     {3, 3, s.store},
		"stored":    {2, 2, s.stored},
		"append": {2, 2, func(ts *testscript.TestScript, args []string) {
			writeFiles(s.t, ts.MkAbs("."), map[string]string{args[0]: ts.ReadFile(args[0]) + ts.ReadFile(args[1])})
		}},
		"same":        {2, 2, s.same},
		"certificate": {2, 3, s.certificate},
		"account": {2, 2, func(ts *testscript.TestScript, args []string) {
			writeFiles(s.t, ts.MkAbs(args[0]), account(s.t, args[1]))
		}},
		"seal": {3, 3, s.seal},
		"fill": {2, 3, s.fill},
	} {
		all[name] = func(ts *testscript.TestScript, neg bool, args []string) {
			if neg || len(args) < c.least || len(args) > c.most {
				ts.Fatalf("usage: see TestScripts")
			}
			c.run(ts, args)
		}
	}
	return all
}

func (s *script) operator(ts *testscript.TestScript) *operator {
	o := &operator{stdin: s.input, getenv: ts.Getenv, watch: s.watched}
	s.input = ""
	o.dial = func(context.Context, string, string) (net.Conn, error) { return nil, errors.New("there is no network") }
	if s.cluster != nil {
		host := 0 // from which it dials: one that runs, if there is any
		if live := s.cluster.Live(); len(live) > 0 {
			host = live[0]
		}
		o.dial = s.cluster.Config(host).PeerDial
	}
	return o
}

func (s *script) run(ts *testscript.TestScript, code int, args []string) {
	s.check(ts, code, s.operator(ts).run(s.t.Context(), args...))
}

// check checks an exit code, and passes on what was said.
func (s *script) check(ts *testscript.TestScript, code int, got said) {
	fmt.Fprint(ts.Stdout(), got.out)
	fmt.Fprint(ts.Stderr(), got.errOut)
	if strings.Contains(got.out+got.errOut, s.secret[5:20]) || strings.Contains(got.out+got.errOut, "PRIVATE KEY-") {
		ts.Fatalf("it prints a secret")
	}
	if got.code != code {
		ts.Fatalf("exit code %d, want %d", got.code, code)
	}
}

func (s *script) start(ts *testscript.TestScript, args []string) {
	ctx, cancel := context.WithCancel(s.t.Context())
	s.cancel, s.done = cancel, make(chan said, 1)
	o := s.operator(ts)
	go func() { s.done <- o.run(ctx, args...) }()
}

func (s *script) ended(ts *testscript.TestScript, args []string) {
	synctest.Wait()
	select {
	case got := <-s.done:
		s.cancel()
		s.check(ts, number(ts, args[0]), got)
	default:
		ts.Fatalf("it still runs")
	}
}

func (s *script) interrupt(ts *testscript.TestScript, args []string) {
	s.cancel()
	s.check(ts, number(ts, args[0]), <-s.done)
}

func (s *script) narrow(ts *testscript.TestScript, _ []string) {
	for line := range strings.Lines(ts.ReadFile("stdout")) {
		if utf8.RuneCountInString(line) > term.Columns+1 {
			ts.Fatalf("a line is too long: %s", line)
		}
	}
}

func (s *script) startCluster(ts *testscript.TestScript, args []string) {
	n := number(ts, args[0])
	s.cluster = clustertest.New(s.t, n, func(i int, cfg *flotilla.Config) {
		if i == n-1 && len(args) > 1 {
			cfg.MaxState = int64(number(ts, args[1]))
		}
		s.secret = cfg.Secrets[0].Encode()
		file := "secrets_" + cfg.Name
		writeFiles(s.t, ts.Getenv("WORK"), map[string]string{file: s.secret + "\n"})
		cfg.Secrets, cfg.SecretsFile = nil, ts.MkAbs(file)
	})
	s.cluster.Settle()
	time.Sleep(30 * time.Second) // until all vote
	s.cluster.Settle()
	writeFiles(s.t, ts.Getenv("WORK"), map[string]string{"secret": s.secret})
	for name, value := range environment(s.cluster, s.secret) {
		ts.Setenv(name, value)
	}
	for i, node := range s.cluster.Nodes {
		name := s.cluster.Config(i).Name
		ts.Setenv("ID_"+name, node.Status().ID)
		ts.Setenv("DIR_"+name, s.cluster.Config(i).Dir)
	}
	leader := s.cluster.Leader()
	for i, variable := range []string{"LEADER", "FOLLOWER", "OTHER"} {
		ts.Setenv(variable, s.cluster.Config((leader+i)%n).Name)
	}
}

func (s *script) node(ts *testscript.TestScript, args []string) {
	if args[0] == "heal" {
		s.cluster.Heal()
		return
	}
	i := s.numberOf(ts, args[1])
	switch args[0] {
	case "kill":
		s.cluster.Kill(i)
	case "stop":
		s.cluster.Stop(i)
	case "restart":
		if len(args) > 2 {
			s.cluster.Config(i).MaxState = int64(number(ts, args[2]))
		}
		s.cluster.Restart(i)
	case "isolate":
		s.cluster.Isolate(i)
	default:
		ts.Fatalf("a node cannot %s", args[0])
	}
}

func (s *script) leads(ts *testscript.TestScript, args []string) {
	s.cluster.Settle()
	if got := s.cluster.Config(s.cluster.Leader()).Name; got != args[0] {
		ts.Fatalf("%s leads", got)
	}
}

// hold lets a node hold a role whenever it can, until the test ends.
func (s *script) hold(ts *testscript.TestScript, args []string) {
	role := flotilla.Role{Name: args[0], Priority: number(ts, args[2])}
	n, ctx := s.cluster.Nodes[s.numberOf(ts, args[1])], s.t.Context()
	var slow time.Duration
	if len(args) > 3 {
		slow = duration(ts, args[3])
	}
	go func() {
		for ctx.Err() == nil {
			n.Hold(ctx, role, func(ctx context.Context, _ flotilla.Tenure) error {
				<-ctx.Done()
				<-time.After(slow)
				return ctx.Err()
			})
			select {
			case <-time.After(100 * time.Millisecond):
			case <-ctx.Done():
			}
		}
	}()
}

func (s *script) store(ts *testscript.TestScript, args []string) {
	n := s.cluster.Nodes[s.numberOf(ts, args[0])]
	ts.Check(n.Storage().Store(s.t.Context(), args[1], []byte(args[2])))
}

func (s *script) stored(ts *testscript.TestScript, args []string) {
	want := testfiles.Read(s.t, ts.MkAbs(args[1]))
	if diff := cmp.Diff(want, stored(s.t, s.cluster.Nodes[s.numberOf(ts, args[0])])); diff != "" {
		ts.Fatalf("%s has other records (-want +got):\n%s", args[0], diff)
	}
}

func (s *script) same(ts *testscript.TestScript, args []string) {
	if diff := cmp.Diff(testfiles.Read(s.t, ts.MkAbs(args[0])), testfiles.Read(s.t, ts.MkAbs(args[1]))); diff != "" {
		ts.Fatalf("the directories differ (-%s +%s):\n%s", args[0], args[1], diff)
	}
}

func (s *script) certificate(ts *testscript.TestScript, args []string) {
	lasts := 90 * 24 * time.Hour
	if len(args) > 2 {
		lasts = duration(ts, args[2])
	}
	writeFiles(s.t, ts.MkAbs(args[0]), certificate(s.t, args[1], time.Now().Add(lasts)))
}

func (s *script) seal(ts *testscript.TestScript, args []string) {
	key := [32]byte([]byte(ts.ReadFile(args[0])))
	files := testfiles.Read(s.t, ts.MkAbs(args[1]))
	for name, value := range maps.Clone(files) {
		files[name] = sealed(&key, value)
	}
	writeFiles(s.t, ts.MkAbs(args[2]), files)
}

func (s *script) fill(ts *testscript.TestScript, args []string) {
	text := strings.Join(args[2:], "")
	text = strings.Repeat(" ", number(ts, args[1])-len(text)) + text
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), []byte(text), 0o600))
}

// numberOf returns the number of a node.
func (s *script) numberOf(ts *testscript.TestScript, name string) int {
	for i := range s.cluster.Nodes {
		if s.cluster.Config(i).Name == name {
			return i
		}
	}
	ts.Fatalf("there is no node %s", name)
	return -1
}

func number(ts *testscript.TestScript, text string) int {
	n, err := strconv.Atoi(text)
	ts.Check(err)
	return n
}

func duration(ts *testscript.TestScript, text string) time.Duration {
	d, err := time.ParseDuration(text)
	ts.Check(err)
	return d
}
