// Package remote is how a program that is not a member asks a cluster: the operators' command, for one. It has the cluster's
// secret, and so the cluster's trust; it is in no list of members, and nodes do not call it.
//
// The messages are here for both sides: Client is the asking one, the root package the one that answers.
package remote
