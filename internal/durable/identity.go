package durable

// IdentityFile is the file in a node's directory that says which node it is of.
const IdentityFile = "node"
