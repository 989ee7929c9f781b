package membership

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/flotilla-ha/flotilla/internal/codec"
	"github.com/flotilla-ha/flotilla/internal/durable"
	"github.com/flotilla-ha/flotilla/internal/rpc"
	"github.com/flotilla-ha/flotilla/internal/seal"
	"github.com/flotilla-ha/flotilla/internal/wire"
)

// A node that was away while its cluster replaced the secret comes back with the new one alone. Its
// directory opens only with a former secret, so it cannot go on as that node, and it need not: the
// cluster has removed it, or would not have dropped the secret. Nodes of the cluster say so, and
// the node joins as a new one. Nobody else is believed: who answers has the new secret.
//
// A process that was only cut off, and is given the new secret while it runs, learns that its node
// was removed. It asks the same, and then what is true of its directory is true of it.

// dropPause is between two rounds of AskDropped.
const dropPause = 200 * time.Millisecond

// Stale asks whether the directory of a node is of no use any more, because of its secrets.
type Stale struct {
	Cluster string // that the node belonged to
	ID      string // of the node
	Key     string // IDs of the secrets that the directory opens with, and spaces
}

// Encode returns the message's bytes.
func (m Stale) Encode() []byte {
	var e codec.Encoder
	e.String(m.Cluster)
	e.String(m.ID)
	e.String(m.Key)
	return e.B
}

// DecodeStale is the inverse of Encode.
func DecodeStale(b []byte) (Stale, error) {
	d := codec.Decoder{B: b}
	m := Stale{Cluster: d.String(), ID: d.String(), Key: d.String()}
	return m, d.End()
}

// Confirmed answers Stale.
type Confirmed struct {
	Stale bool // the cluster has dropped the secrets, and the node is no member
}

// Encode returns the message's bytes.
func (m Confirmed) Encode() []byte {
	var e codec.Encoder
	e.Bool(m.Stale)
	return e.B
}

// DecodeConfirmed is the inverse of Encode.
func DecodeConfirmed(b []byte) (Confirmed, error) {
	d := codec.Decoder{B: b}
	m := Confirmed{Stale: d.Bool()}
	return m, d.End()
}

// serveStale answers for a node that is ready: it has all that the cluster had decided.
func (g *Greetings) serveStale(_ context.Context, _ string, in Stale) (Confirmed, error) {
	s := g.store.State()
	if !g.leases.IsReady() || in.Cluster == "" || in.Cluster != s.Cluster || slices.Contains(s.Servers, in.ID) {
		return Confirmed{}, nil
	}
	known := false
	for name := range strings.FieldsSeq(in.Key) {
		known = true
		if !slices.ContainsFunc(s.Seals.Dropped, func(id seal.KeyID) bool { return id.String() == name }) {
			return Confirmed{}, nil
		}
	}
	return Confirmed{known}, nil
}

// AskDropped asks the nodes at addrs whether they have dropped the secrets that the directory of id
// opens with, and removed its node. It returns false if none of them says so before ctx ends. port
// may be that of a client.
func AskDropped(ctx context.Context, port *wire.Port, id *Identity, addrs []string) bool {
	q := id.stale()
	for ctx.Err() == nil {
		for _, addr := range addrs {
			if q.ask(ctx, port, addr) {
				return true
			}
		}
		select {
		case <-time.After(dropPause):
		case <-ctx.Done():
		}
	}
	return false
}

// stale is the question about the directory of an identity.
func (id *Identity) stale() Stale { return Stale{Cluster: id.Cluster, ID: id.ID, Key: id.Key} }

// ask asks the node at addr. It returns false if that does not say yes.
func (m Stale) ask(ctx context.Context, port *wire.Port, addr string) bool {
	_, a, err := rpc.CallAddr(ctx, port, addr, rpc.Stale, m, DecodeConfirmed)
	return err == nil && a.Stale
}

// refusedFor returns a refusal. That of a removed node becomes another one if the peer has dropped
// the node's secrets as well.
func (g *Greetings) refusedFor(ctx context.Context, no *RefusedError) *RefusedError {
	id := g.ident.Identity()
	if no.Kind != refusedRemoved || !id.stale().ask(ctx, g.replica.Port, no.peer) {
		return no
	}
	return &RefusedError{Refusal{refusedDropped, "the cluster has replaced its secret while this node was away, and removed it"}, no.peer}
}

// SetAsideNext has the next LoadIdentity set the state in dir aside.
func SetAsideNext(dir *durable.Dir, id *Identity) error {
	return NewIdentityFile(dir, id).Save(func(id *Identity) { id.Aside = durable.AsideName(time.Now()) })
}
