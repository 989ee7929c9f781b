//go:build unix

// Command mixed runs clusters whose nodes are of two releases: this tree, and the commit in
// .ci/previous. Each node is a real process on loopback. A client reads and writes records over
// HTTPS meanwhile, and tries the next node as a balancer would.
//
//	go run ./internal/mixed            # a minute: upgrade, downgrade, upgrade, raise
//	go run ./internal/mixed -for 10m   # and that long random mixes under faults
//
// The first cluster is upgraded node by node, downgraded, and upgraded again. Then the cluster
// version is raised, and a node of the previous release is refused. The second cluster is a random
// mix: a node at a time is killed, stopped for a while, or restarted by plan, and goes on with the
// one program or the other. At the end it is upgraded too.
//
// It exits with 1 if a request failed on all nodes, if a record was not what was written, if a node
// ended by itself or says that it has failed, if a node logs an error, or if the cluster version is
// not what it should be. The directories and logs are kept then.
//
// It needs the history of the repository, and no network.
package main
