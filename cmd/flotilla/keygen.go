package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

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
		examples: []string{
			"(umask 077; flotilla keygen > /etc/flotilla/secret)",
			"flotilla keygen -out /etc/flotilla/secret",
		},
		prepare: func(p *program, flags *flag.FlagSet) func(context.Context, []string) error {
			out := flags.String("out", "", "write it to `FILE`, readable by its owner alone; a FILE that is\nthere stays as it is")
			return func(_ context.Context, args []string) error {
				if err := noArgs(args); err != nil {
					return err
				}
				text := flotilla.NewSecret().Encode() + "\n"
				if *out != "" {
					return writeNew(p, *out, text)
				}
				_, err := io.WriteString(p.stdout, text)
				return err
			}
		},
	}
}

// writeNew makes a file with a secret, or leaves the one that is there. It is there as a whole or not at all: half a secret would be kept for ever.
func writeNew(p *program, file, secret string) error {
	tmp, err := os.CreateTemp(filepath.Dir(file), ".keygen-*") // mode 0600
	if err != nil {
		return err
	}
	defer os.Remove(tmp.Name())
	_, err = tmp.WriteString(secret)
	if err == nil {
		err = tmp.Sync()
	}
	if err = errors.Join(err, tmp.Close()); err != nil {
		return err
	}
	err = os.Link(tmp.Name(), file)
	if errors.Is(err, fs.ErrExist) {
		fmt.Fprintf(p.stderr, "flotilla keygen: %s is there already, and stays\n", file)
		return nil
	}
	return err
}
