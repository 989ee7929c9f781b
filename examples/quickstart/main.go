// Quickstart shows what flotilla is for, with real parts, in one command that needs nothing but Go:
//
//	go run ./examples/quickstart
//
// It starts a certificate authority (Pebble, Let's Encrypt's test server), three nodes as processes
// of their own, and a TCP balancer without health checks. The nodes form a cluster and obtain one
// certificate. Then the leader is killed under load and comes back, and all three nodes are
// restarted one after the other. At the end the program searches every file that the nodes have
// written for texts that must not be there.
//
// To learn how a program uses flotilla, read node.go: it is all that a node does. The rest is the
// world around it:
//
//	main.go           flags, signals, exit status
//	demo.go           the demonstration: what is set up, and how it waits
//	acts.go           its five acts
//	node.go           one node: a web server that is a member of a cluster
//	cluster.go        the three nodes as the parent sees them
//	logs.go           their logs on the terminal
//	proc_*.go         no process is left behind
//	balancer.go       the TCP balancer
//	load.go           the clients
//	scan.go           the search through the files
//	screen.go         the output
//	internal/lab      the certificate authority and its name server, shared with other tests
//	internal/process  nodes as processes, shared likewise
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"syscall"
)

const usage = `quickstart shows a flotilla cluster on this machine: a certificate authority, three
processes, a TCP balancer, and what happens when one of the processes is killed.
It needs no other program, no root, no network but loopback and no fixed port.

usage: go run ./examples/quickstart [-keep] [-dir DIR] [-v]

  -keep      leave everything running at the end, and print a curl command for it;
             ctrl-C ends it
  -dir DIR   keep the nodes' files in DIR, which must be empty or not exist yet.
             They are sealed with a secret that exists only while this runs,
             so afterwards you can only check what they do not contain
  -v         show the logs of the nodes and of the certificate authority on stderr

exit status: 0 every line of the closing table held, 1 one did not or something
went wrong, 2 the command line is wrong, 130 ctrl-C (128 plus the number of the
signal that ended it)
`

// options are the flags of the command line.
type options struct {
	keep    bool
	dir     string // empty: a temporary directory
	verbose bool
}

// parseArgs reads the command line. It returns flag.ErrHelp for -help. Other errors are sentences.
func parseArgs(args []string) (options, error) {
	var o options
	fs := flag.NewFlagSet("quickstart", flag.ContinueOnError)
	fs.SetOutput(io.Discard)
	fs.BoolVar(&o.keep, "keep", false, "")
	fs.StringVar(&o.dir, "dir", "", "")
	fs.BoolVar(&o.verbose, "v", false, "")
	if err := fs.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return o, err
		}
		return o, fmt.Errorf("%w; -h lists the flags", err)
	}
	if fs.NArg() > 0 {
		return o, fmt.Errorf("there are no arguments besides flags, %q is one too many; -h lists the flags", fs.Arg(0))
	}
	given := false
	fs.Visit(func(f *flag.Flag) { given = given || f.Name == "dir" })
	if given && o.dir == "" {
		return o, errors.New("-dir needs the name of a directory; -h lists the flags")
	}
	return o, nil
}

// interrupted is the cause of the end when a signal arrives.
type interrupted struct{ sig os.Signal }

func (e interrupted) Error() string { return "ended by signal: " + e.sig.String() }

// status returns the exit status that shells expect of a program that this signal has ended.
func (e interrupted) status() int {
	if s, ok := e.sig.(syscall.Signal); ok {
		return 128 + int(s)
	}
	return 1
}

func main() {
	if os.Getenv(nodeEnv) != "" {
		os.Exit(nodeMain())
	}
	// The kernel ends the nodes when the thread that started them ends. So this thread must stay.
	runtime.LockOSThread()
	os.Exit(parentMain())
}

// parentMain runs the demonstration and returns the exit status.
func parentMain() int {
	opts, err := parseArgs(os.Args[1:])
	if errors.Is(err, flag.ErrHelp) {
		fmt.Print(usage)
		return 0
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "quickstart: "+err.Error())
		return 2
	}

	ctx, cancel := context.WithCancelCause(context.Background())
	defer cancel(nil)
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	go func() { cancel(interrupted{<-signals}) }()
	// "| head" would end this program by SIGPIPE at its next line. Because the signal is handled,
	// the write fails instead. The signal itself is ignored: sockets cause it too.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE)
	unseen := func() { cancel(interrupted{syscall.SIGPIPE}) }

	dir, remove, err := workDir(opts.dir)
	if err != nil {
		fmt.Fprintln(os.Stderr, "quickstart: "+err.Error())
		return 2
	}
	defer remove()

	scr := newScreen(os.Stdout, unseen)
	held, err := runDemo(ctx, scr, dir, opts)
	scr.clear()
	var stop interrupted
	switch {
	case errors.As(context.Cause(ctx), &stop):
		fmt.Fprintln(os.Stderr, "quickstart: "+stop.Error()+"; the nodes are stopped, temporary files removed")
		return stop.status()
	case err != nil:
		fmt.Fprintln(os.Stderr, "quickstart: "+err.Error())
		return 1
	case !held:
		return 1
	}
	return 0
}

// workDir returns the directory for the files of the nodes. The function removes it at the end,
// unless the user has named it.
func workDir(dir string) (string, func(), error) {
	if dir == "" {
		tmp, err := os.MkdirTemp("", "flotilla-quickstart-")
		if err != nil {
			return "", nil, fmt.Errorf("no temporary directory (-dir names another): %w", err)
		}
		return tmp, func() { os.RemoveAll(tmp) }, nil
	}
	abs, err := filepath.Abs(dir)
	if err != nil {
		return "", nil, fmt.Errorf("-dir: %w", err)
	}
	if err := os.MkdirAll(abs, 0o700); err != nil {
		return "", nil, fmt.Errorf("-dir: %w", err)
	}
	entries, err := os.ReadDir(abs)
	if err != nil {
		return "", nil, fmt.Errorf("-dir: %w", err)
	}
	if len(entries) > 0 {
		return "", nil, fmt.Errorf("-dir: %s is not empty; name a directory that is, or that does not exist yet", abs)
	}
	return abs, func() {}, nil
}
