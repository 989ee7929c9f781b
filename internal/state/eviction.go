package state

import (
	"cmp"
	"slices"
	"strings"

	"github.com/flotilla-ha/flotilla/internal/codec"
	"github.com/flotilla-ha/flotilla/internal/seal"
)

// mostEvictions is how many evictions that have ended a state remembers.
const mostEvictions = 64

// Eviction is how far the cluster has gone with the eviction of a node whose machine was taken
// over.
//
// There are three steps, each a command. EvictMember has every node refuse that node, and notes
// what it knows. ShutOut says that nothing the node knows opens anything any more, and drops the
// session tickets. EndEviction says that the certificates are others. Between them the secret, the
// data key and the certificates are replaced, as they are without an eviction.
type Eviction struct {
	// Index is that of the entry that began it. It names the eviction.
	Index uint64

	// Node is the node's ID, and Name its name for people.
	Node, Name string

	// Secrets are the IDs of the secrets that the node knows, with spaces between them.
	Secrets string

	// Keys are the IDs of the data keys that the node knows.
	Keys []seal.KeyID

	// ShutOut is the index of the entry since which nothing of that opens anything. 0: it may yet.
	ShutOut uint64

	// Ended is the index of the entry that ended the eviction. 0: it has not ended.
	Ended uint64
}

// KnowsSecret reports whether the node knows the secret id.
func (v Eviction) KnowsSecret(id seal.KeyID) bool {
	return slices.Contains(strings.Fields(v.Secrets), id.String())
}

// knowing returns an eviction whose node knows those data keys too.
func (v Eviction) knowing(keys []seal.KeyID) Eviction {
	v.Keys = slices.Clone(v.Keys)
	for _, id := range keys {
		if !slices.Contains(v.Keys, id) {
			v.Keys = append(v.Keys, id)
		}
	}
	return v
}

// String returns the node's name, or its ID if it has none.
func (v Eviction) String() string { return cmp.Or(v.Name, v.Node) }

func (v Eviction) encode(e *codec.Encoder) {
	e.Uint(v.Index)
	e.String(v.Node)
	e.String(v.Name)
	e.String(v.Secrets)
	e.Uint(uint64(len(v.Keys)))
	for _, id := range v.Keys {
		encodeKeyID(e, id)
	}
	e.Uint(v.ShutOut)
	e.Uint(v.Ended)
}

func decodeEviction(d *codec.Decoder) Eviction {
	v := Eviction{Index: d.Uint(), Node: d.String(), Name: d.String(), Secrets: d.String()}
	for range d.Count() {
		v.Keys = append(v.Keys, decodeKeyID(d))
	}
	v.ShutOut, v.Ended = d.Uint(), d.Uint()
	return v
}

// Evictions are the evictions that a state remembers, the one that has changed last at the end.
// They are immutable.
type Evictions []Eviction

// Of returns the eviction of a node. A node that was evicted stays so.
func (all Evictions) Of(id string) (Eviction, bool) {
	return all.find(func(v Eviction) bool { return v.Node == id })
}

// Know returns the eviction of a node that knows the secret id.
func (all Evictions) Know(id seal.KeyID) (Eviction, bool) {
	return all.find(func(v Eviction) bool { return v.KnowsSecret(id) })
}

func (all Evictions) find(is func(Eviction) bool) (Eviction, bool) {
	i := slices.IndexFunc(all, is)
	if i < 0 {
		return Eviction{}, false
	}
	return all[i], true
}

// with replaces an eviction, or adds one. It forgets the oldest of too many that have ended.
func (all Evictions) with(v Eviction) Evictions {
	all = slices.DeleteFunc(slices.Clone(all), func(other Eviction) bool { return other.Node == v.Node })
	all = append(all, v)
	if len(all) > mostEvictions {
		if i := slices.IndexFunc(all, func(v Eviction) bool { return v.Ended != 0 }); i >= 0 {
			all = slices.Delete(all, i, i+1)
		}
	}
	return all
}
