package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/flotilla-ha/flotilla"
	"github.com/flotilla-ha/flotilla/internal/remote"
	"github.com/flotilla-ha/flotilla/internal/seal"
)

const maxSecretFile = 64 << 10 // bytes

// connectText explains the flags of connection in the help of each command that has them.
const connectText = `
The secret and the nodes' addresses come from the flags, or from the variables
that nodes read: FLOTILLA_SECRETS_FILE, FLOTILLA_SECRETS and FLOTILLA_PEERS. A
secret is never written on the command line. The mode of its file is not
checked: let nobody but its owner read it.`

// secretText is connectText for a command that asks no node.
const secretText = `
The secret comes from the flag, or from the variables that nodes read:
FLOTILLA_SECRETS_FILE and FLOTILLA_SECRETS. It is never written on the command
line.`

// connection is how a command finds its cluster: the flags, and behind them the environment.
type connection struct {
	p                 *program
	secretFile, peers *string
}

// connectFlags registers the flags of connection.
func connectFlags(p *program, flags *flag.FlagSet) *connection {
	return &connection{
		p:          p,
		secretFile: secretFlag(flags),
		peers: flags.String("peers", "", "`ADDRESSES` of nodes: a:7373,b:7373, or dns:app:7373, or\n"+
			"srv:_flotilla._tcp.example.com; one that answers is enough"),
	}
}

func secretFlag(flags *flag.FlagSet) *string {
	return flags.String("secret-file", "", "`FILE` that holds the cluster's secret; \"-\" is standard input")
}

// open returns a client for the cluster. It asks nobody yet.
func (c *connection) open() (*remote.Client, error) {
	secrets, err := c.secrets()
	if err != nil {
		return nil, err
	}
	peers, err := c.discovery()
	if err != nil {
		return nil, err
	}
	return remote.Open(remote.Config{Secrets: secrets, Peers: peers, Dial: c.p.dial})
}

func (c *connection) secrets() ([]seal.Secret, error) {
	text, from := c.p.env("FLOTILLA_SECRETS"), "FLOTILLA_SECRETS"
	file, by := *c.secretFile, "-secret-file"
	if file == "" {
		if file, by = c.p.env("FLOTILLA_SECRETS_FILE"), "FLOTILLA_SECRETS_FILE"; file != "" && text != "" {
			return nil, usagef("FLOTILLA_SECRETS and FLOTILLA_SECRETS_FILE are both set; unset one")
		}
	}
	if file != "" {
		b, err := c.p.readSmall(file)
		if err != nil {
			return nil, usagef("%s: %v", by, err)
		}
		text, from = string(b), by+" "+file
	}
	var secrets []seal.Secret
	for i, w := range words(text) {
		s, err := seal.ParseSecret(w)
		if err != nil {
			return nil, usagef("%s holds no valid secret in place %d: %v", from, i+1, err)
		}
		secrets = append(secrets, s)
	}
	if len(secrets) == 0 {
		if file != "" {
			return nil, usagef("%s is empty", from)
		}
		return nil, usagef("the cluster's secret is missing; give -secret-file, or set FLOTILLA_SECRETS_FILE")
	}
	return secrets, nil
}

// readSmall reads a file of a key or a secret; "-" is standard input.
func (p *program) readSmall(file string) ([]byte, error) {
	r := p.stdin
	if file != "-" {
		f, err := os.Open(file)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		r = f
	}
	b, err := io.ReadAll(io.LimitReader(r, maxSecretFile+1))
	if err == nil && len(b) > maxSecretFile {
		err = errors.New("the file is too large for a secret")
	}
	return b, err
}

func (c *connection) discovery() (flotilla.Discovery, error) {
	text, from := *c.peers, "-peers"
	if text == "" {
		text, from = c.p.env("FLOTILLA_PEERS"), "FLOTILLA_PEERS"
	}
	text = strings.TrimSpace(text)
	if name, ok := strings.CutPrefix(text, "srv:"); ok && name != "" {
		return flotilla.SRV(name), nil
	}
	host, isDNS := strings.CutPrefix(text, "dns:")
	addrs := words(host)
	if len(addrs) == 0 {
		return nil, usagef("the addresses of the cluster's nodes are missing; give -peers, or set FLOTILLA_PEERS")
	}
	for _, a := range addrs {
		if err := checkHostPort(a); err != nil {
			return nil, usagef("%s must list addresses as host:port: %v", from, err)
		}
	}
	if isDNS {
		return flotilla.DNS(host), nil
	}
	return flotilla.Static(addrs...), nil
}

func checkHostPort(addr string) error {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return err
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 || host == "" {
		return fmt.Errorf("%q names no host, or no port", addr)
	}
	return nil
}

func words(s string) []string {
	return strings.FieldsFunc(s, func(r rune) bool { return r == ',' || r == ' ' || r == '\n' || r == '\r' || r == '\t' })
}

// unanswered is the error of a question that has had its time.
func unanswered(limit time.Duration) error {
	return &remote.UnreachableError{Err: fmt.Errorf("no node has answered within %v; are the addresses right, and does every firewall let their port pass?", limit)}
}
