// Command s3backup is an API server whose cluster keeps its backups in an S3 store.
//
//	s3backup serve               serve HTTPS, and let the cluster back itself up
//	s3backup list                print the names of the backups
//	s3backup fetch NAME FILE     download a backup, and verify it
//	s3backup restore NAME DIR    make a data directory of a backup
//
// The cluster is configured by FLOTILLA_* (see flotilla.ConfigFromEnv), the store by S3_* and AWS_*
// (see s3store.FromEnv), and the server by API_DOMAINS: the names that it serves, separated by
// commas. Without them it serves "localhost" with a private certificate, for trials. README.md
// shows all of it.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/flotilla-ha/flotilla"
	"github.com/flotilla-ha/flotilla/examples/s3backup/s3store"
)

const usage = "usage: s3backup serve | list | fetch NAME FILE | restore NAME DIR"

func main() {
	log.SetFlags(0)
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout); err != nil {
		log.Fatal(err)
	}
}

// run reads the environment and does what the arguments say.
func run(ctx context.Context, args []string, out io.Writer) error {
	want := map[string]int{"serve": 1, "list": 1, "fetch": 3, "restore": 3}
	if len(args) == 0 || len(args) != want[args[0]] {
		return errors.New(usage)
	}
	cfg, err := flotilla.ConfigFromEnv()
	if err != nil {
		return err
	}
	where, err := s3store.FromEnv()
	if err != nil {
		return err
	}
	store, err := s3store.Open(where)
	if err != nil {
		return err
	}
	if args[0] != "list" && len(cfg.Secrets) == 0 {
		return errors.New("set FLOTILLA_SECRETS or FLOTILLA_SECRETS_FILE: only the secret of the cluster opens its backups")
	}
	switch args[0] {
	case "serve":
		if cfg.Logger == nil {
			cfg.Logger = slog.New(slog.NewTextHandler(os.Stderr, nil))
		}
		cfg.Backups = flotilla.Backups{Store: store, Every: 24 * time.Hour, Keep: 14}
		domains := strings.FieldsFunc(os.Getenv("API_DOMAINS"), func(r rune) bool { return r == ',' || r == ' ' })
		return serve(ctx, cfg, domains)
	case "list":
		return list(ctx, out, store)
	case "fetch":
		return fetch(ctx, out, store, args[1], args[2], cfg.Secrets)
	default:
		return restore(ctx, out, store, args[1], args[2], cfg.Secrets)
	}
}

func list(ctx context.Context, out io.Writer, store flotilla.BackupStore) error {
	names, err := store.List(ctx)
	if err != nil {
		return err
	}
	for _, name := range names {
		fmt.Fprintln(out, name)
	}
	return nil
}
