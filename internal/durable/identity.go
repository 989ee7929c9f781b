package durable

// Files of a node in its directory, beside the log and the snapshots.
const (
	IdentityFile = "node"         // which node the directory is of
	OwnFile      = "certificates" // certificates that the node has for itself
)
