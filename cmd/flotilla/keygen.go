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
	"github.com/flotilla-ha/flotilla/cmd/flotilla/internal/cli"
)

func keygenCommand() cli.Command {
	return cli.Command{
		Name:    "keygen",
		Summary: "print a new cluster secret",
		Text: `
Give the same secret to every node, by FLOTILLA_SECRETS_FILE or
FLOTILLA_SECRETS. Anyone who has it is a member of the cluster and can read
everything: let only the owner of its file read it, and keep a copy in a safe
place.`,
		Examples: []string{
			"(umask 077; flotilla keygen > /etc/flotilla/secret)",
			"flotilla keygen -out /etc/flotilla/secret",
		},
		Prepare: func(env *cli.Env, flags *flag.FlagSet) cli.Action {
			out := flags.String("out", "", "write it to `FILE`, readable by its owner alone; an existing FILE\n"+
				"stays as it is")
			return func(context.Context, []string) error {
				text := flotilla.NewSecret().Encode() + "\n"
				if *out != "" {
					return writeSecret(env, *out, text)
				}
				_, err := io.WriteString(env.Stdout, text)
				return err
			}
		},
	}
}

// writeSecret creates a file with a secret. An existing file stays. The file appears as a whole or
// not at all, because half a secret would stay there for ever.
func writeSecret(env *cli.Env, file, secret string) error {
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
		fmt.Fprintf(env.Stderr, "flotilla keygen: %s exists and stays as it is\n", file)
		return nil
	}
	return err
}
