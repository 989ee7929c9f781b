package admin

import (
	"errors"
	"io"
	"strings"

	"github.com/flotilla-ha/flotilla/cmd/flotilla/internal/cli"
	"github.com/flotilla-ha/flotilla/internal/seal"
)

const maxFile = 64 << 10 // bytes of a file with a key or secrets

// readSecrets returns the secrets of the flag's file, or of the environment.
func readSecrets(env *cli.Env, file string) ([]seal.Secret, error) {
	text, from := env.Getenv("FLOTILLA_SECRETS"), "FLOTILLA_SECRETS"
	by := "-secret-file"
	if file == "" {
		file, by = env.Getenv("FLOTILLA_SECRETS_FILE"), "FLOTILLA_SECRETS_FILE"
		if file != "" && text != "" {
			return nil, cli.Usagef("FLOTILLA_SECRETS and FLOTILLA_SECRETS_FILE are both set; unset one")
		}
	}
	if file != "" {
		b, err := ReadKeyFile(env, file)
		if err != nil {
			return nil, cli.Usagef("%s: %v", by, err)
		}
		text, from = string(b), by+" "+file
	}
	var secrets []seal.Secret
	for i, w := range words(text) {
		s, err := seal.ParseSecret(w)
		if err != nil {
			return nil, cli.Usagef("%s holds no valid secret in place %d: %v", from, i+1, err)
		}
		secrets = append(secrets, s)
	}
	switch {
	case len(secrets) > 0:
		return secrets, nil
	case file != "":
		return nil, cli.Usagef("%s is empty", from)
	}
	return nil, cli.Usagef("the cluster's secret is missing; give -secret-file, or set FLOTILLA_SECRETS_FILE")
}

// ReadKeyFile reads a file with a key or secrets. The name "-" is standard input.
func ReadKeyFile(env *cli.Env, file string) ([]byte, error) {
	r, err := env.OpenInput(file)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	b, err := io.ReadAll(io.LimitReader(r, maxFile+1))
	if err == nil && len(b) > maxFile {
		err = errors.New("the file is too large for a secret")
	}
	return b, err
}

// words splits a list.
func words(s string) []string {
	return strings.FieldsFunc(s, func(r rune) bool { return strings.ContainsRune(", \n\r\t", r) })
}
