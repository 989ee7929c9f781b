package main

import (
	"context"
	"flag"

	"github.com/flotilla-ha/flotilla/cmd/flotilla/internal/cli"
	"github.com/flotilla-ha/flotilla/cmd/flotilla/internal/completion"
)

// completionCommand completes the commands of the table, which is asked when the command runs.
func completionCommand(table func() cli.Table) cli.Command {
	return cli.Command{
		Name:    "completion",
		Args:    "SHELL",
		Summary: "print a completion script for bash, zsh or fish",
		Examples: []string{
			"flotilla completion bash > /etc/bash_completion.d/flotilla",
			"flotilla completion zsh > \"${fpath[1]}/_flotilla\"",
			"flotilla completion fish > ~/.config/fish/completions/flotilla.fish",
		},
		Prepare: func(env *cli.Env, _ *flag.FlagSet) cli.Action {
			return func(_ context.Context, args []string) error {
				if err := completion.Write(env.Stdout, args[0], table()); err != nil {
					return cli.Usagef("%v", err)
				}
				return nil
			}
		},
	}
}
