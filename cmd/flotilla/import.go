package main

import (
	"context"
	"flag"
	"fmt"
	"time"

	"github.com/flotilla-ha/flotilla/cmd/flotilla/internal/admin"
	"github.com/flotilla-ha/flotilla/cmd/flotilla/internal/cli"
	"github.com/flotilla-ha/flotilla/cmd/flotilla/internal/importer"
	"github.com/flotilla-ha/flotilla/cmd/flotilla/internal/records"
	"github.com/flotilla-ha/flotilla/cmd/flotilla/internal/term"
	"github.com/flotilla-ha/flotilla/internal/plaintext"
)

func importCommand() cli.Command {
	return cli.Command{
		Name:    "import",
		Args:    "DIR",
		Summary: "import certificates and accounts into the cluster",
		Text: `
DIR is a directory of certmagic's FileStorage, such as Caddy's data directory.
With -from-s3 it is a directory of objects that were downloaded from the bucket
of one of the storages github.com/thomersch/certmagic-generic-s3 and
github.com/techknowlogick/certmagic-s3.

The three files of a certificate are imported together, in one write, and only
if all are there and the private key belongs to the certificate. Locks,
challenge tokens and other leftovers are left out. Records that the cluster
already has are not written again, so repeating an interrupted run completes it.
Records that the cluster has with another content are refused, unless -overwrite
is given. The report says what was refused and why.
` + admin.Help,
		Examples: []string{
			"flotilla import -secret-file /etc/flotilla/secret -peers 10.0.0.1:7373 -dry-run /var/lib/caddy/.local/share/caddy",
			"flotilla import -from-s3 -s3-key-file s3.key -prefix acme ./bucket",
		},
		Prepare: func(env *cli.Env, flags *flag.FlagSet) cli.Action {
			im := &importRun{env: env, cluster: admin.NewFlags(env, flags)}
			flags.BoolVar(&im.fromS3, "from-s3", false, "DIR holds objects of an S3 storage")
			flags.StringVar(&im.keyFile, "s3-key-file", "", "`FILE` with the key that the objects are sealed with: 32 bytes, or\n"+
				"64 hexadecimal digits, or the base64 of 32 bytes; without it they are\n"+
				"in clear")
			flags.StringVar(&im.prefix, "prefix", "", "cut the `PREFIX` off the names, and leave out files without it")
			flags.BoolVar(&im.overwrite, "overwrite", false, "replace records that the cluster has with another content")
			flags.BoolVar(&im.dryRun, "dry-run", false, "show what would be done, and change nothing")
			return func(ctx context.Context, args []string) error { return im.run(ctx, args[0]) }
		},
	}
}

// importRun is "import" with its flags.
type importRun struct {
	env     *cli.Env
	cluster *admin.Flags

	fromS3, overwrite, dryRun bool
	keyFile, prefix           string
}

func (im *importRun) run(ctx context.Context, dir string) error {
	source, err := im.source(dir)
	if err != nil {
		return err
	}
	defer source.Close()
	client, err := im.cluster.Open()
	if err != nil {
		return err
	}
	defer client.Close()
	var plan *importer.Plan
	im.env.Await("reading "+plaintext.Safe(dir), func() { plan, err = source.Scan() })
	if err != nil {
		return cli.Usagef("DIR cannot be read: %v", err)
	}
	if plan.Prefix != "" {
		return cli.Usagef("the names in DIR seem to have a prefix; give -prefix %s", plaintext.Safe(plan.Prefix))
	}
	if im.dryRun {
		fmt.Fprintln(im.env.Stdout, "dry run: nothing is stored, and this is what would be done")
	}
	progress := im.env.StartProgress("importing", term.Goal{Total: int64(len(plan.Groups))})
	job := &importer.Import{
		Store:     client,
		Source:    source,
		Overwrite: im.overwrite,
		DryRun:    im.dryRun,
		Now:       time.Now(),
		Progress:  progress.One,
	}
	results, err := job.Run(ctx, plan.Groups)
	progress.End()
	return im.report(plan, results, err)
}

// source opens the directory. It reads nothing in it yet.
func (im *importRun) source(dir string) (*importer.Source, error) {
	var key importer.ObjectKey
	if im.keyFile != "" {
		if !im.fromS3 {
			return nil, cli.Usagef("-s3-key-file is for objects of an S3 storage; give -from-s3 too")
		}
		b, err := admin.ReadKeyFile(im.env, im.keyFile)
		if err == nil {
			key, err = importer.ParseObjectKey(b)
		}
		if err != nil {
			return nil, cli.Usagef("-s3-key-file: %v", err)
		}
	}
	source, err := importer.Open(dir, im.prefix, key)
	if err != nil {
		return nil, cli.Usagef("DIR: %v", err)
	}
	return source, nil
}

// report prints what became of the groups. The error is that of the run.
func (im *importRun) report(plan *importer.Plan, results []importer.Result, err error) error {
	r := records.NewReport("", plan.Left, records.Taken, records.Replaced, records.Same, records.Refused)
	done := 0
	for i, res := range results {
		if res.Outcome != "" {
			r.Add(plan.Groups[i].Kind, plan.Groups[i].Name, res.Outcome, res.Text)
			done++
		}
	}
	r.Write(im.env.Stdout)
	if len(plan.Groups) == 0 {
		fmt.Fprintln(im.env.Stdout, "there is nothing to import")
	}
	if err != nil {
		return fmt.Errorf("stopped after %d of %d; repeat it to complete it: %w", done, len(results), err)
	}
	if r.AnyRefused() {
		return cli.ErrReported
	}
	return nil
}
