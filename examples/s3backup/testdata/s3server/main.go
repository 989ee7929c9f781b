// Command s3server is a real S3 server for tests and trials: the Versity S3 Gateway over a
// directory. It makes one bucket, and prints the variables that the example needs.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"log"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/versity/versitygw/backend/meta"
	"github.com/versity/versitygw/backend/posix"
	"github.com/versity/versitygw/embedgw"
)

func main() {
	log.SetFlags(0)
	addr := flag.String("addr", "127.0.0.1:9000", "`ADDRESS` to listen on, or the path of a Unix socket")
	dir := flag.String("dir", "s3-data", "`DIR` of the objects")
	bucket := flag.String("bucket", "backups", "`BUCKET` to make")
	users := flag.String("users", "", "`DIR` of users.json, with accounts that have the rights of bucket policies")
	child := flag.Bool("child", false, "end with the standard input")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if *child {
		go func() {
			io.Copy(io.Discard, os.Stdin)
			os.Exit(0)
		}()
	}
	if err := run(ctx, *addr, *dir, *bucket, *users); err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context, addr, dir, bucket, users string) error {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return err
	}
	objects, attributes := filepath.Join(dir, "objects"), filepath.Join(dir, "attributes")
	for _, d := range []string{filepath.Join(objects, bucket), attributes} {
		if err := os.MkdirAll(d, 0o700); err != nil {
			return err
		}
	}
	side, err := meta.NewSideCar(attributes) // not all file systems have extended attributes
	if err != nil {
		return err
	}
	store, err := posix.New(objects, side, posix.PosixOpts{NewDirPerm: 0o700, SideCarDir: attributes})
	if err != nil {
		return err
	}
	key, secret := env("AWS_ACCESS_KEY_ID", "trial"), env("AWS_SECRET_ACCESS_KEY", "trial-secret")
	if !filepath.IsAbs(addr) {
		fmt.Printf("export S3_ENDPOINT=http://%s S3_BUCKET=%s AWS_ACCESS_KEY_ID=%s AWS_SECRET_ACCESS_KEY=%s\n", addr, bucket, key, secret)
	}
	return embedgw.RunVersityGW(ctx, store, &embedgw.Config{
		RootUserAccess: key, RootUserSecret: secret, Ports: []string{addr},
		MaxConnections: 100, MaxRequests: 100, MultipartMaxParts: 10_000, KeepAlive: true, Quiet: true,
		IAMDir: users, IAMCacheDisable: true,
	})
}

func env(name, otherwise string) string {
	if v := os.Getenv(name); v != "" {
		return v
	}
	return otherwise
}
