// Package seal encrypts and authenticates what a cluster stores, sends and backs up.
//
// # Keys
//
// There are two tiers. The operator's [Secret] is never stored. It wraps the keyring, and is the
// seed of the internal certificate authority. The [Keyring] holds random data keys. It is stored
// and replicated only wrapped. So a new secret costs a new wrapping of some hundred bytes. Only a
// new data key makes it necessary to seal the data again.
//
//	Secret ─ HKDF ┬ "kid"  public ID
//	              ├ "ca"   seed of the internal CA
//	              └ "kek"  wraps the keyring
//
//	data key ─ HKDF ┬ "data/id"      public ID
//	                ├ "data/record"  key of envelopes
//	                ├ "data/stream"  makes a key for each stream
//	                └ "data/wrap"    authenticates a wrapped keyring
//
// # Guarantees
//
// An envelope holds one record; a stream holds a snapshot or a backup. Both use NaCl's secretbox:
// XSalsa20 and Poly1305. A change, a cut or an addition is noticed ([ErrTampered]). Sealed data
// names the key that opens it, and no other key is tried. Each format begins with its version.
//
// # Assumptions
//
// The nonces of 24 bytes are random, without a count of uses: 2^48 of them under one key collide
// with a probability of 2^-97. Everyone who has a secret can read everything and forge everything.
//
// # Flow
//
//	secret ─► Unwrap ─► Keyring ─► Seal, Open (records); NewWriter, NewReader (streams)
package seal
