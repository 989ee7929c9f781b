// Quickstart shows what flotilla is for, on real parts, in one command that needs nothing but Go:
//
//	go run ./examples/quickstart
//
// It starts a certificate authority (Let's Encrypt's test server, Pebble), three nodes as processes of their own, and a TCP
// balancer that looks at nothing. The nodes form a cluster and obtain one certificate. Then the leader is killed under load,
// comes back, and all three are restarted one after the other. At the end every file that the nodes wrote is searched for
// what must not be there.
//
// To learn how a program uses flotilla read node.go: it is all that a node does. The rest stands in for the world around it:
//
//	main.go       flags, signals, exit status
//	show.go       the show: what is set up, and how it waits
//	acts.go       its five acts
//	node.go       one node: a web server that is a member of a cluster
//	fleet.go      starts, kills, stops and asks the three processes
//	logs.go       what becomes of their logs
//	proc_*.go     so that no process is left behind
//	internal/lab  the certificate authority and its resolver, shared with the tests beside this
//	balancer.go   the TCP balancer
//	load.go       the clients
//	scan.go       the search through the files
//	screen.go     what you see of it
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
             They are sealed with a secret that exists only while this runs:
             what can be done with them later is to look for what is not in them
  -v         show the logs of the nodes and of the certificate authority on stderr

exit status: 0 every line of the closing table held, 1 one did not or something
went wrong, 2 the command line is wrong, 130 ctrl-C (128 and the number of the
signal that ended it)
`

// options is what the command line asks for.
type options struct {
	keep    bool
	dir     string // empty: a temporary directory
	verbose bool
}

// parseArgs reads the command line. It returns flag.ErrHelp if that asks for help, and otherwise an error that is a sentence.
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

// interrupted is the cause that ends the show when a signal arrives.
type interrupted struct{ sig os.Signal }

func (e interrupted) Error() string { return "ended by signal: " + e.sig.String() }

// status is the exit status that shells expect of a program ended by this signal.
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
	// The kernel is asked to end the nodes when the thread that started them ends, so it must be one that stays.
	runtime.LockOSThread()
	os.Exit(parentMain())
}

// parentMain runs the show and returns the exit status.
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
	// "| head" ends a program by SIGPIPE at its next line, at once. With somebody to take the signal, the write fails instead. The
	// signal itself says nothing: sockets cause it too.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE)
	unseen := func() { cancel(interrupted{syscall.SIGPIPE}) }

	dir, remove, err := workDir(opts.dir)
	if err != nil {
		fmt.Fprintln(os.Stderr, "quickstart: "+err.Error())
		return 2
	}
	defer remove()

	scr := newScreen(os.Stdout, unseen)
	held, err := show(ctx, scr, dir, opts)
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

// workDir returns the directory for the nodes' files and what removes it at the end: nothing, if the user named it.
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
