package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/flotilla-ha/flotilla/internal/remote"
)

const importers = 8 // groups under way at once, so that the cluster can commit several together

func importCommand() command {
	return command{
		name:    "import",
		args:    "DIR",
		summary: "bring certificates and accounts into the cluster",
		text: `
DIR is a directory of certmagic's FileStorage, such as Caddy's data directory.
With -from-s3 it is a directory of objects that were downloaded from the bucket
of one of the storages github.com/thomersch/certmagic-generic-s3 and
github.com/techknowlogick/certmagic-s3.

The three files of a certificate go together, in one write, and only if they are
all there and the private key belongs to the certificate. Locks, challenge
tokens and other leftovers are left out. What the cluster has already is not
written again, so a run that was interrupted is completed by repeating it. What
the cluster has with another content is refused, unless -overwrite is given. The
report says what was refused and why.
` + connectText,
		examples: []string{
			"flotilla import -secret-file /etc/flotilla/secret -peers 10.0.0.1:7373 -dry-run /var/lib/caddy/.local/share/caddy",
			"flotilla import -from-s3 -s3-key-file s3.key -prefix acme ./bucket",
		},
		prepare: func(p *program, flags *flag.FlagSet) func(context.Context, []string) error {
			o := importOptions{
				connection: connectFlags(p, flags),
				fromS3:     flags.Bool("from-s3", false, "DIR holds objects of an S3 storage"),
				keyFile: flags.String("s3-key-file", "", "`FILE` with the key that the objects are sealed with: 32 bytes, or\n"+
					"64 hexadecimal digits, or the base64 of 32 bytes; without it they are\n"+
					"in clear"),
				prefix:    flags.String("prefix", "", "take the `PREFIX` off the names, and leave out what is not below it"),
				overwrite: flags.Bool("overwrite", false, "replace what the cluster has with another content"),
				dryRun:    flags.Bool("dry-run", false, "say what would be done, and do nothing"),
			}
			return func(ctx context.Context, args []string) error { return p.importDir(ctx, o, args) }
		},
	}
}

type importOptions struct {
	*connection
	fromS3, overwrite, dryRun *bool
	keyFile, prefix           *string
}

// source returns what is to be imported, before anything of it is read.
func (o *importOptions) source(p *program, args []string) (*source, error) {
	dir, err := oneArg(args, "DIR")
	if err != nil {
		return nil, err
	}
	s := new(source)
	if *o.keyFile != "" {
		if !*o.fromS3 {
			return nil, usagef("-s3-key-file is for objects of an S3 storage; give -from-s3 too")
		}
		b, err := p.readSmall(*o.keyFile)
		if err == nil {
			s.key, err = parseObjectKey(b)
		}
		if err != nil {
			return nil, usagef("-s3-key-file: %v", err)
		}
	}
	if prefix := strings.Trim(*o.prefix, "/"); prefix != "" {
		s.prefix = prefix + "/"
	}
	if s.root, err = os.OpenRoot(dir); err != nil {
		return nil, usagef("DIR: %v", err)
	}
	return s, nil
}

func (p *program) importDir(ctx context.Context, o importOptions, args []string) error {
	s, err := o.source(p, args)
	if err != nil {
		return err
	}
	defer s.root.Close()
	client, err := o.open()
	if err != nil {
		return err
	}
	defer client.Close()
	c, err := s.scan()
	if err != nil {
		return usagef("DIR cannot be read: %v", err)
	}
	if c.hint != "" {
		return usagef("the names in DIR seem to have a prefix; give -prefix %s", shown(c.hint))
	}
	r := newReport("", len(c.groups), c.left, outcomeTaken, outcomeReplaced, outcomeSame, outcomeRefused)
	im := &importer{client: client, source: s, mode: remote.Keep, overwrite: *o.overwrite, now: time.Now()}
	switch {
	case *o.dryRun:
		im.mode = remote.Check
		fmt.Fprintln(p.stdout, "dry run: nothing is stored, and this is what would be done")
	case *o.overwrite:
		im.mode = remote.Overwrite
	}
	g := p.startProgress("importing", len(c.groups))
	results, err := im.run(ctx, c.groups, g)
	g.end()
	for i, res := range results {
		if res.outcome != "" {
			r.add(c.groups[i].kind, c.groups[i].name, res.outcome, res.text)
		}
	}
	r.write(p.stdout)
	if err != nil {
		done := len(results) - countZero(results)
		return fmt.Errorf("stopped after %d of %d; repeat it to complete it: %w", done, len(results), err)
	}
	return r.err()
}

func countZero(results []result) int {
	n := 0
	for _, r := range results {
		if r.outcome == "" {
			n++
		}
	}
	return n
}

// importer takes groups to a cluster.
type importer struct {
	client    *remote.Client
	source    *source
	mode      remote.Mode
	overwrite bool
	now       time.Time // certificates that end before it have expired
}

// result is what has become of one group; the zero result says that it was not come to.
type result struct {
	outcome outcome
	text    string
}

// run takes all groups, some at once. The error is the first one that is not about one group alone; what was under way then is
// given up.
func (im *importer) run(ctx context.Context, groups []*group, g *progress) ([]result, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	results := make([]result, len(groups))
	next := make(chan int)
	var wg sync.WaitGroup
	for range importers {
		wg.Go(func() {
			for i := range next {
				var err error
				if results[i], err = im.take(ctx, groups[i]); err != nil {
					cancel(err)
					return
				}
				g.done.Add(1)
			}
		})
	}
	for i := range groups {
		select {
		case next <- i:
			continue
		case <-ctx.Done():
		}
		break
	}
	close(next)
	wg.Wait()
	return results, context.Cause(ctx)
}

// take takes one group. An error says that no node could be asked.
func (im *importer) take(ctx context.Context, g *group) (result, error) {
	records, err := im.source.read(g)
	remark := ""
	if err == nil {
		switch g.kind {
		case kindCertificate:
			remark, err = checkCertificate(g.name, records, im.now)
		case kindAccount:
			err = checkAccount(records)
		}
	}
	if err != nil {
		return result{outcomeRefused, err.Error()}, nil
	}
	reply, err := im.client.Put(ctx, im.mode, records)
	if err != nil {
		return result{}, err
	}
	switch {
	case reply.Outcome == remote.Stored:
		return result{outcomeTaken, remark}, nil
	case reply.Outcome == remote.Replaced, reply.Outcome == remote.Differs && im.mode == remote.Check && im.overwrite:
		return result{outcomeReplaced, remark}, nil
	case reply.Outcome == remote.Same:
		return result{outcomeSame, remark}, nil
	case reply.Outcome == remote.Differs:
		return result{outcomeRefused, reply.Reason + "; give -overwrite to replace it"}, nil
	}
	return result{outcomeRefused, reply.Reason}, nil
}
