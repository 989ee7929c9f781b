package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"time"

	"github.com/flotilla-ha/flotilla/cmd/flotilla/internal/admin"
	"github.com/flotilla-ha/flotilla/cmd/flotilla/internal/bundle"
	"github.com/flotilla-ha/flotilla/cmd/flotilla/internal/cli"
	"github.com/flotilla-ha/flotilla/cmd/flotilla/internal/redact"
	"github.com/flotilla-ha/flotilla/cmd/flotilla/internal/show"
	"github.com/flotilla-ha/flotilla/cmd/flotilla/internal/term"
	"github.com/flotilla-ha/flotilla/internal/diagnosis"
	"github.com/flotilla-ha/flotilla/internal/plaintext"
	"github.com/flotilla-ha/flotilla/internal/remote"
	"github.com/flotilla-ha/flotilla/internal/view"
)

const debugNodeTime = 10 * time.Second // for one node to report, by another one or by itself

func debugCommand() cli.Command {
	return cli.Command{
		Name:    "debug",
		Summary: "collect the state of all nodes in an archive",
		Text: `
The archive is for those who look for a fault. It has, of each node, its status,
build, settings, memory and disk, what its goroutines do, and the newest 256 KiB
of its log; the status and the health of the cluster; and the variables of this
command that begin with FLOTILLA_. The log has what the program's logger takes:
debug records only if that is set to debug. A node that does not answer is
listed with the reason. Without any answer the archive has that, and the exit
code is 3.

No secret, key, certificate, or value or name of a record is put into it, but
for the name of one in an error of the log. Passwords in URLs and what looks
like a secret are taken out of its texts. It has the names and addresses of
nodes, names of roles and domains, and paths: look at it before you give it to
others.

The file gets a name with the time, unless -out gives it one. It must not exist
yet. With -out - the archive goes to the standard output.
` + admin.Help,
		Examples: []string{"flotilla debug -secret-file /etc/flotilla/secret -peers 10.0.0.1:7373,10.0.0.2:7373"},
		Prepare: func(env *cli.Env, flags *flag.FlagSet) cli.Action {
			cluster := admin.NewFlags(env, flags)
			out := flags.String("out", "", "`FILE` to write; \"-\" is the standard output")
			return func(ctx context.Context, _ []string) error {
				if *out == "-" && env.Screen {
					return cli.Usagef("an archive is no text for a terminal; give -out FILE")
				}
				d := &debugRun{env: env, cluster: cluster, now: time.Now().UTC()}
				return d.run(ctx, *out)
			}
		},
	}
}

// debugRun is one run of "debug".
type debugRun struct {
	env     *cli.Env
	cluster *admin.Flags
	now     time.Time
}

// nodeReport is what a node said of itself, or why it said nothing.
type nodeReport struct {
	view.Node
	report diagnosis.Report
	stacks []byte
	err    error
}

func (d *debugRun) run(ctx context.Context, out string) error {
	secrets, err := d.cluster.Secrets()
	if err != nil {
		return err
	}
	client, err := d.cluster.Open()
	if err != nil {
		return err
	}
	defer client.Close()
	var raw [][]byte
	var texts []string
	for _, s := range secrets {
		raw, texts = append(raw, s[:]), append(texts, s.Encode())
	}
	if token := d.healthToken(); token != "" {
		raw, texts = append(raw, []byte(token)), append(texts, token)
	}
	name := "flotilla-debug-" + d.now.Format("20060102-150405")
	v, unreachable := client.View(ctx)
	var nodes []nodeReport
	if unreachable == nil {
		nodes = d.ask(ctx, client, v)
	}
	write := func(w io.Writer) error {
		return d.write(bundle.New(w, name, d.now, redact.New(raw, texts)), v, unreachable, nodes)
	}
	if out == "-" {
		if err := write(d.env.Stdout); err != nil {
			return err
		}
		d.report(d.env.Stderr, "the standard output", nodes)
		return unreachable
	}
	out = cmp.Or(out, name+".tar.gz")
	f, err := os.OpenFile(out, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	if err := errors.Join(write(f), f.Close()); err != nil {
		return errors.Join(err, os.Remove(out))
	}
	d.report(d.env.Stdout, out, nodes)
	return unreachable
}

// ask asks all nodes for their reports: by the node that answered, or else at their own addresses.
func (d *debugRun) ask(ctx context.Context, client *admin.Client, v *view.Cluster) []nodeReport {
	nodes := make([]nodeReport, len(v.Nodes))
	progress := d.env.StartProgress("asking the nodes", term.Goal{Total: int64(len(nodes))})
	defer progress.End()
	var asking sync.WaitGroup
	for i, n := range v.Nodes {
		asking.Go(func() {
			defer progress.One()
			r := &nodes[i]
			r.Node = n
			q := remote.DiagnoseRequest{Node: n.ID, Stacks: true}
			if r.report, r.stacks, r.err = d.askOne(ctx, client, q); r.err == nil {
				return
			}
			direct, err := d.cluster.OpenAt(n.Addr)
			if err != nil {
				return
			}
			defer direct.Close()
			if report, stacks, err := d.askOne(ctx, direct, q); err == nil {
				r.report, r.stacks, r.err = report, stacks, nil
			}
		})
	}
	asking.Wait()
	return nodes
}

func (d *debugRun) askOne(ctx context.Context, client *admin.Client, q remote.DiagnoseRequest) (diagnosis.Report, []byte, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, debugNodeTime, errors.New("no answer in time"))
	defer cancel()
	return client.Diagnose(ctx, q)
}

// write fills the archive and closes it.
func (d *debugRun) write(a *bundle.Archive, v *view.Cluster, unreachable error, nodes []nodeReport) error {
	type listed struct {
		ID, Name, Addr, State string
		Files                 string `json:",omitempty"` // where its report is
		Err                   string `json:",omitempty"` // why there is none
	}
	summary := struct {
		Made  time.Time
		By    diagnosis.Build
		Err   string `json:",omitempty"`
		Nodes []listed
	}{Made: d.now, By: diagnosis.OfBuild()}
	if unreachable != nil {
		summary.Err = unreachable.Error()
	}
	var errs []error
	for i := range nodes {
		n := &nodes[i]
		state, _ := n.State()
		l := listed{ID: n.ID, Name: n.Name, Addr: n.Addr, State: state}
		dir := path.Join("nodes", fileName(n.Name)+"-"+plaintext.ShortID(n.ID))
		if n.Status != nil {
			l.Files = dir
			errs = append(errs, a.JSON(dir+"/status.json", n.Status))
		}
		if n.err != nil {
			l.Err = n.err.Error()
		} else {
			l.Files = dir
			log := n.report.Log
			n.report.Log = "" // it has a file of its own
			errs = append(errs, a.JSON(dir+"/report.json", n.report), a.Stacks(dir+"/goroutines.txt", n.stacks), a.Lines(dir+"/log.jsonl", log))
		}
		summary.Nodes = append(summary.Nodes, l)
	}
	errs = append(errs, a.JSON("summary.json", summary), a.JSON("environment.json", d.environment()))
	if v != nil {
		var status, health strings.Builder
		show.Status(&status, term.Style{}, v, d.now)
		for _, c := range v.Health(d.now) {
			fmt.Fprintf(&health, "%s: %s\n", c.What, c.Text)
		}
		errs = append(errs, a.Text("status.txt", status.String()), a.Text("health.txt", health.String()))
	}
	return errors.Join(append(errs, a.Close())...)
}

// environment returns the variables that nodes read, as they are here. Others are not looked at.
func (d *debugRun) environment() map[string]string {
	all := make(map[string]string)
	for _, name := range nodeVariables() {
		value := d.env.Getenv(name)
		switch {
		case value == "":
		case name == "FLOTILLA_SECRETS", name == "FLOTILLA_HEALTH_TOKEN", name == "FLOTILLA_EMAIL":
			all[name] = "(set)"
		default:
			all[name] = value
		}
	}
	return all
}

// healthToken returns the token of the health port that the environment names, if it can be read.
func (d *debugRun) healthToken() string {
	if file := d.env.Getenv("FLOTILLA_HEALTH_TOKEN_FILE"); file != "" {
		text, _ := os.ReadFile(file)
		return strings.TrimSpace(string(text))
	}
	return d.env.Getenv("FLOTILLA_HEALTH_TOKEN")
}

// nodeVariables returns the variables that flotilla.ConfigFromEnv reads.
func nodeVariables() []string {
	var all []string
	for _, name := range []string{
		"DIR", "NAME", "ADDR", "ADVERTISE", "ZONE", "SECRETS", "SECRETS_FILE", "PEERS", "EXPECT", "TIMING", "GUARD", "MAX_STATE", "MAX_RECORDS", "REMOVE_DEAD",
		"BACKUPS", "EMAIL", "ACME_CA", "ACME_ROOTS", "PROXIES", "HTTPS_ADDR", "HTTP_ADDR", "HEALTH_ADDR", "HEALTH_TOKEN", "HEALTH_TOKEN_FILE", "LOG",
	} {
		all = append(all, "FLOTILLA_"+name)
	}
	return all
}

// fileName returns a name without characters that a file's name should not have.
func fileName(name string) string {
	return cmp.Or(regexp.MustCompile(`[^A-Za-z0-9-]+`).ReplaceAllString(name, "_"), "node")
}

// report says what is in the archive.
func (d *debugRun) report(w io.Writer, file string, nodes []nodeReport) {
	answered := 0
	for i := range nodes {
		if n := &nodes[i]; n.err != nil {
			fmt.Fprintf(w, "%s: %s\n", plaintext.Safe(n.Name), plaintext.Safe(n.err.Error()))
		} else {
			answered++
		}
	}
	fmt.Fprintf(w, "%s has the reports of %d of %d nodes; look at it before you give it to others\n",
		plaintext.Safe(filepath.Base(file)), answered, len(nodes))
}
