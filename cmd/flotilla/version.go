package main

import (
	"context"
	"flag"
	"fmt"
	"runtime"
	"runtime/debug"
)

func versionCommand() command {
	return command{
		name:    "version",
		summary: "print the version of this program",
		prepare: func(p *program, _ *flag.FlagSet) func(context.Context, []string) error {
			return func(_ context.Context, args []string) error {
				if err := noArgs(args); err != nil {
					return err
				}
				version := "(unknown)"
				if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
					version = info.Main.Version
				}
				_, err := fmt.Fprintf(p.stdout, "flotilla %s %s %s/%s\n", version, runtime.Version(), runtime.GOOS, runtime.GOARCH)
				return err
			}
		},
	}
}
