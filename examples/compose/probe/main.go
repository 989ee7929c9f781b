// Command probe is a client of the compose example, for people and for smoke.sh.
//
//	probe get [-roots FILE] [-at ADDRESS] URL
//	    makes one request, and prints the answer and the certificate
//	probe count [-roots FILE] [-at ADDRESS] [-n NUMBER] URL
//	    makes many requests, and prints which nodes answered and what address of the client
//	    they saw
//	probe watch [-roots FILE] NAME
//	    asks all addresses of NAME until it is interrupted, and prints when another node answers there
//	probe measure [-roots FILE] NAME
//	    does the same for programs, with commands on standard input: see measure.go
//	probe addresses
//	    prints the IP addresses of this machine, one per line
package main

import (
	"context"
	"crypto/x509"
	"flag"
	"fmt"
	"log"
	"os"
	"os/signal"
	"syscall"
	"time"
)

func main() {
	log.SetFlags(0)
	if err := run(os.Args[1:]); err != nil {
		log.Fatal(err)
	}
}

func run(args []string) error {
	if len(args) == 0 {
		return fmt.Errorf("usage: probe get|count|watch|measure|addresses")
	}
	flags := flag.NewFlagSet(args[0], flag.ExitOnError)
	rootFile := flags.String("roots", "", "`file` with the certificates to trust; empty: those of the system")
	at := flags.String("at", "", "host:port to connect to, instead of the addresses of the name; for get and count")
	number := flags.Int("n", 60, "the number of requests; for count")
	every := flags.Duration("every", 10*time.Millisecond, "the time between two requests to an address; for measure")
	flags.Parse(args[1:])
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if args[0] == "addresses" {
		return addresses()
	}
	if flags.NArg() != 1 {
		return fmt.Errorf("usage: probe %s [flags] NAME", args[0])
	}
	var roots *x509.CertPool
	if *rootFile != "" {
		text, err := os.ReadFile(*rootFile)
		if err != nil {
			return err
		}
		roots = x509.NewCertPool()
		if !roots.AppendCertsFromPEM(text) {
			return fmt.Errorf("%s has no certificate", *rootFile)
		}
	}
	switch args[0] {
	case "get":
		return get(ctx, flags.Arg(0), *at, roots)
	case "count":
		return count(ctx, flags.Arg(0), *at, roots, *number)
	case "watch":
		return watch(ctx, flags.Arg(0), roots)
	case "measure":
		return measure(ctx, flags.Arg(0), roots, *every)
	}
	return fmt.Errorf("there is no command %q", args[0])
}
