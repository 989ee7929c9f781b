// Package preflight checks, before a node starts, whether it can: its configuration, directory,
// ports, peers, clock and certificate authority, the names and the floating addresses that it is to
// serve. It finds what a start would find, and what only a later day would.
//
// # Guarantees
//
// A check changes nothing. It creates no directory. Files that it makes to measure a disk, and to
// see whether it may write, are gone when it ends. It listens at ports for a moment, connects to
// peers as an operator's command and not as a node, and asks the authority for its directory.
//
// It is safe beside a running node. Then it says that the node runs, asks it who it is, and leaves
// out what the node has in use.
//
// No finding has a secret in it.
//
// # Flow
//
// [Run] goes through its steps in order. A step looks at one subject, and adds a [Finding] or
// several. What a step learns that others need, such as who this node is, is in the checker.
package preflight
