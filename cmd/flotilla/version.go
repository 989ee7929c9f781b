package main

import (
	"context"
	"flag"
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/flotilla-ha/flotilla/cmd/flotilla/internal/cli"
)

func versionCommand() cli.Command {
	return cli.Command{
		Name:    "version",
		Summary: "print the version of this program",
		Prepare: func(env *cli.Env, _ *flag.FlagSet) cli.Action {
			return func(context.Context, []string) error {
				version := "(unknown)"
				if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
					version = info.Main.Version
				}
				_, err := fmt.Fprintf(env.Stdout, "flotilla %s %s %s/%s\n",
					version, runtime.Version(), runtime.GOOS, runtime.GOARCH)
				return err
			}
		},
	}
}
