package admin

import (
	"context"
	"flag"
	"sync"

	"github.com/flotilla-ha/flotilla"
	"github.com/flotilla-ha/flotilla/cmd/flotilla/internal/cli"
	"github.com/flotilla-ha/flotilla/internal/remote"
	"github.com/flotilla-ha/flotilla/internal/seal"
	"github.com/flotilla-ha/flotilla/internal/view"
)

// Help explains the flags of NewFlags in the help of each command that has them.
const Help = `
The secret and the nodes' addresses come from the flags, or from the variables
that nodes read: FLOTILLA_SECRETS_FILE, FLOTILLA_SECRETS and FLOTILLA_PEERS. The
command line never holds a secret. The mode of the secret's file is not checked:
let nobody but its owner read it.`

// SecretHelp is Help for a command that asks no node.
const SecretHelp = `
The secret comes from the flag, or from the variables that nodes read:
FLOTILLA_SECRETS_FILE and FLOTILLA_SECRETS. The command line never holds it.`

// Flags are the flags by which a command finds its cluster. Variables of the environment stand in
// for those that are not given.
type Flags struct {
	env     *cli.Env
	peers   *string
	secrets func() ([]seal.Secret, error) // reads them once: standard input has an end
}

// NewFlags registers the flags.
func NewFlags(env *cli.Env, flags *flag.FlagSet) *Flags {
	f := NewSecretFlags(env, flags)
	f.peers = flags.String("peers", "", "`ADDRESSES` of nodes: a:7373,b:7373, or dns:app:7373, or\n"+
		"srv:_flotilla._tcp.example.com; one that answers is enough")
	return f
}

// NewSecretFlags registers the flags of a command that asks no node.
func NewSecretFlags(env *cli.Env, flags *flag.FlagSet) *Flags {
	file := flags.String("secret-file", "", "`FILE` that holds the cluster's secret; \"-\" is standard input")
	read := func() ([]seal.Secret, error) { return readSecrets(env, *file) }
	return &Flags{env: env, secrets: sync.OnceValues(read)}
}

// Open returns a client for the cluster. It asks no node yet. The caller closes it.
func (f *Flags) Open() (*Client, error) { return f.OpenAt(*f.peers) }

// OpenAt is Open for nodes at the given addresses, in the form of the flag.
func (f *Flags) OpenAt(addrs string) (*Client, error) {
	secrets, err := f.Secrets()
	if err != nil {
		return nil, err
	}
	return f.open(addrs, secrets)
}

// OpenWith is Open with other secrets than those of the flag.
func (f *Flags) OpenWith(secrets ...seal.Secret) (*Client, error) { return f.open(*f.peers, secrets) }

func (f *Flags) open(addrs string, secrets []seal.Secret) (*Client, error) {
	peers, err := findPeers(f.env, addrs)
	if err != nil {
		return nil, err
	}
	client, err := remote.Open(remote.Config{Secrets: secrets, Peers: peers, Dial: f.env.Dial})
	if err != nil {
		return nil, err
	}
	return &Client{Client: client, env: f.env}, nil
}

// Secrets returns the cluster's secrets. There is at least one.
func (f *Flags) Secrets() ([]seal.Secret, error) { return f.secrets() }

// OfCluster is Secrets for functions of the library.
func (f *Flags) OfCluster() ([]flotilla.Secret, error) {
	raw, err := f.Secrets()
	if err != nil {
		return nil, err
	}
	secrets := make([]flotilla.Secret, len(raw))
	for i, r := range raw {
		if secrets[i], err = flotilla.ParseSecret(r.Encode()); err != nil {
			return nil, err
		}
	}
	return secrets, nil
}

// WithView opens a client and calls do with it and with what the cluster is like.
func (f *Flags) WithView(ctx context.Context, do func(*Client, *view.Cluster) error) error {
	client, err := f.Open()
	if err != nil {
		return err
	}
	defer client.Close()
	v, err := client.View(ctx)
	if err != nil {
		return err
	}
	return do(client, v)
}

// WithNode is WithView for one node, by its name, its ID, or the beginning of its ID.
func (f *Flags) WithNode(ctx context.Context, node string, do func(*Client, *view.Cluster, view.Node) error) error {
	return f.WithView(ctx, func(client *Client, v *view.Cluster) error {
		n, err := v.Find(node)
		if err != nil {
			return err
		}
		return do(client, v, n)
	})
}
