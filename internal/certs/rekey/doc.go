// Package rekey makes worthless what somebody knows of the certificates of a cluster, as after a
// machine was taken over: the private keys of certificates, the keys of ACME accounts, and the key
// of the cluster's own authority.
//
// A re-keying has an ID and a plan. The plan is made once and lists all that must be replaced. It
// is in the cluster's storage, so any node can go on with it after any interruption:
//
//	flotilla/rekey/ID/plan.json            when it began and ended, and the counts
//	flotilla/rekey/ID/trouble.json         what fails now, and when it is tried again
//	flotilla/rekey/ID/accounts/HASH        an ACME account
//	flotilla/rekey/ID/certificates/HASH    a certificate
//
// plan.json is written last, after all that it lists. Every step looks first whether it was done
// before, so a step that is repeated does no harm.
//
// # An account
//
// The new key is stored beside the account before the authority is asked to take it. After an
// interruption the authority says which of the two keys it knows. An account that it knows by
// neither is gone, and certmagic opens another.
//
// # A certificate
//
//	planned    → a certificate with another key is ordered; the old one is served until then
//	replaced   → every node has had time to serve the new one; the old one is revoked
//	withdrawn  → nobody serves the name: key and metadata are deleted; if no node orders
//	             another one, the old one is revoked, and the rest is deleted
//	done
//
// The old private key stays in the list until the certificate is revoked. It signs the revocation,
// because authorities then refuse the key for ever, and because that works for every authority,
// also for one whose account is gone. Nothing of it is left when the item is done.
package rekey
