package main

import (
	"context"
	"flag"
	"fmt"

	"github.com/flotilla-ha/flotilla"
)

func keygenCommand() command {
	return command{
		name:    "keygen",
		summary: "print a new cluster secret",
		text: `
Give the same secret to every node, by FLOTILLA_SECRETS_FILE or
FLOTILLA_SECRETS. Whoever has it is a member of the cluster and can read
everything: keep the file readable by its owner alone, and a copy in a safe
place.`,
		examples: []string{"(umask 077; flotilla keygen > /etc/flotilla/secret)"},
		prepare: func(p *program, _ *flag.FlagSet) func(context.Context, []string) error {
			return func(_ context.Context, args []string) error {
				if err := noArgs(args); err != nil {
					return err
				}
				_, err := fmt.Fprintln(p.stdout, flotilla.NewSecret().Encode())
				return err
			}
		},
	}
}
