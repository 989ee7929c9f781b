// Package flotilla makes a program a node of a small cluster, which keeps TLS certificates and
// other small records on every node, orders the certificates once for all, and serves them from
// any.
//
// There is no server to run beside the program: no etcd, no Consul, no shared file system, no
// certificate sidecar. The nodes are the program's own processes. They replicate with
// hashicorp/raft and obtain certificates with certmagic.
//
// # A program
//
//	func main() {
//		ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
//		defer stop()
//		cfg, err := flotilla.ConfigFromEnv()
//		if err != nil {
//			log.Fatal(err)
//		}
//		http.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) { fmt.Fprintln(w, "hello") })
//		if err := flotilla.Serve(ctx, cfg, http.DefaultServeMux, "api.example.com"); err != nil {
//			log.Fatal(err)
//		}
//	}
//
// Serve does all in one call. [Open] and the methods of [Node] do the same step by step:
// [Node.Ready] waits for the cluster, [Node.Storage] is the replicated storage, [Node.TLSConfig]
// and [Node.ListenTLS] are for servers of your own, [Node.HTTPHandler] answers the certificate
// authority on port 80, [Node.Health] is for balancers and operators, and [Node.Shutdown],
// [Node.Leave] and [Node.Close] are the three ways to end.
//
// # Development mode
//
// A Config in which Dir, Peers and Secrets are all empty describes one node in memory, with a
// private certificate authority, on loopback addresses only: https://localhost:8443 with Serve. Any
// other address is an error then, so that a variable that was forgotten cannot make a lone node of
// a cluster's, nor serve a private certificate to the world.
//
// # A cluster
//
// Three nodes need one secret, made once with [NewSecret], a directory each, and a way to find one
// another:
//
//	FLOTILLA_SECRETS_FILE=/run/secrets/flotilla
//	FLOTILLA_DIR=/var/lib/api
//	FLOTILLA_PEERS=10.0.0.1:7373,10.0.0.2:7373,10.0.0.3:7373
//	FLOTILLA_EXPECT=3
//	FLOTILLA_EMAIL=admin@example.com
//
// The configuration is the same at the first start, at a restart and on a node that is added later:
// a node that is a member already goes on, one that finds a cluster joins it, and Expect nodes that
// see one another and no cluster form one. [ConfigFromEnv] lists all variables. Peers reach each
// other at Config.Addr, port 7373 unless said otherwise, which is no business of anybody else. A
// node that joins gets all data at once, and votes after ten seconds of good health; five members
// vote at most, further ones serve all the same.
//
// # What is promised
//
// Every node holds a lease: the promise of a majority of the voters, renewed several times within
// its length, which is 600 ms at [LAN], 200 ms at [Fast], 3 s at [WAN]. All that a node may do on
// its own it may do while its lease lasts.
//
// Writes, locks and roles are linearizable; reads are regular: never older than the last completed
// write. A write returns when a majority of the voters has stored it, on disk if they have a Dir,
// and every session in the state has applied it or has lapsed. A session is one life of a node; it
// is not waited for either when its process is gone, so that its connections were closed and its
// port refuses. So what was written through one node is found through any other that has its lease,
// at once. A write is carried out once, however often it had to be sent. Without a majority of the
// voters a write waits, 30 seconds at most, and then fails with [ErrNoLeader], or with its
// context's error if that is done before. It may still take effect.
//
// A read is answered from the node's own memory. It needs no network and no majority. A node
// without a lease tries to get one for two seconds; from then on it answers what it has, so
// certificates are served whatever has become of the rest of the cluster, and says [ErrNotReady] of
// what it has not.
//
// [Node.Hold] runs a function on one node at a time. Its context ends before the lease does, and
// the next holder begins after it, on any other node, whatever happened: crash, pause, partition, a
// wrong clock. What is assumed is that clocks run, whatever they show, within one part in a hundred
// of right; that of a machine that sleeps stands still, and its holders learn of their loss only
// with the first answer after it wakes. A write with that context takes effect only while the role
// is held. Locks of [Storage] are roles without a function: certmagic's, whose certificates are
// stored under the same condition.
//
// Log, snapshots and the traffic between nodes are sealed under keys that only the secret opens;
// SECURITY.md says against whom that helps.
//
// # Limits
//
// Two voters tolerate the loss of none, three of one, five of two. A value has at most [MaxValue]
// bytes, a name [MaxName], the records of programs Config.MaxState, 64 MiB unless said otherwise,
// certificates as much apart from that, and all of it is in the memory of each node. Whoever has
// the secret is trusted in everything. A secret cannot be replaced in a running cluster yet.
//
// Planned, and not in this release: backups and metrics.
package flotilla
