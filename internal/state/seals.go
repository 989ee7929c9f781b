package state

import (
	"slices"

	"github.com/flotilla-ha/flotilla/internal/codec"
	"github.com/flotilla-ha/flotilla/internal/seal"
)

// mostDropped is how many secrets and data keys that are used no more a state remembers.
const mostDropped = 64

// Rotation is how far the cluster has gone with the replacement of its secret. The zero Rotation
// says that the secret is not being replaced.
//
// There are three steps, each a command. AcceptSecret wraps the keyring with the new secret too.
// UseSecret has nodes prove themselves to one another with it. DropSecrets ends the use of all
// others. Each step is refused until every member has acknowledged the one before, in its Member.
// So no node is ever asked for a secret that it does not have, and a node that is away delays the
// next step until it is back or removed.
type Rotation struct {
	// To is the ID of the new secret.
	To seal.KeyID

	// Used says that nodes prove themselves with it.
	Used bool
}

// Seals is what the state remembers of secrets and data keys, besides the keyring itself.
type Seals struct {
	// Rotation is the replacement of the secret that is under way.
	Rotation Rotation

	// Since is the index of the entry that has changed the keyring last, or how it is wrapped. What
	// was sealed before may open with a secret or a key that is used no more. A member that has
	// nothing of that any more says so in Member.Clean.
	Since uint64

	// Dropped are the IDs of secrets that are used no more, the newest last. Nobody may use one
	// again.
	Dropped []seal.KeyID

	// Forgotten are the IDs of data keys that are in no keyring any more, the newest last. An entry
	// that is sealed with one comes too late, and does nothing.
	Forgotten []seal.KeyID
}

func (q Seals) isZero() bool {
	return q.Rotation == Rotation{} && q.Since == 0 && len(q.Dropped) == 0 && len(q.Forgotten) == 0
}

func (q Seals) encode(e *codec.Encoder) {
	encodeKeyID(e, q.Rotation.To)
	e.Bool(q.Rotation.Used)
	e.Uint(q.Since)
	for _, ids := range [][]seal.KeyID{q.Dropped, q.Forgotten} {
		e.Uint(uint64(len(ids)))
		for _, id := range ids {
			encodeKeyID(e, id)
		}
	}
}

func decodeSeals(d *codec.Decoder) Seals {
	q := Seals{Rotation: Rotation{To: decodeKeyID(d), Used: d.Bool()}, Since: d.Uint()}
	for _, ids := range []*[]seal.KeyID{&q.Dropped, &q.Forgotten} {
		for range d.Count() {
			*ids = append(*ids, decodeKeyID(d))
		}
	}
	return q
}

func encodeKeyID(e *codec.Encoder, id seal.KeyID) { e.Bytes(id[:]) }

func decodeKeyID(d *codec.Decoder) (id seal.KeyID) {
	b := d.Bytes()
	if len(b) != len(id) {
		d.Bad = true
		return id
	}
	return seal.KeyID(b)
}

// remembered adds to a list of IDs, and forgets the oldest of too many.
func remembered(ids []seal.KeyID, more ...seal.KeyID) []seal.KeyID {
	all := slices.Concat(ids, more)
	return all[max(0, len(all)-mostDropped):]
}
