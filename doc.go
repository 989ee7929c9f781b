// Package flotilla turns a program into a node of a small cluster. Every node keeps a copy of all
// TLS certificates and of other small records. A certificate is ordered once for the whole cluster,
// and any node can serve it.
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
// Serve does everything in one call. [Open] and the methods of [Node] do the same step by step.
// [Node.Ready] waits for the cluster. [Node.Storage] is the replicated storage of certmagic, and
// [Node.KV] keeps records of your own, with versions, watches and expiry. [Node.TLSConfig]
// and [Node.ListenTLS] are for servers of your own. [Node.HTTPHandler] answers the certificate
// authority on port 80. [Node.Health] is for balancers and operators. [Node.Shutdown], [Node.Leave]
// and [Node.Close] are the three ways to end a node.
//
// # Development mode
//
// A Config in which Dir, Peers and Secrets are all empty describes a single node in memory. It has
// a private certificate authority and listens on loopback addresses only: Serve answers at
// https://localhost:8443. Any other address is an error in this mode. So a forgotten variable
// cannot silently turn a cluster member into a single node, and it cannot serve a private
// certificate to the public.
//
// # A cluster
//
// Three nodes need one secret, which [NewSecret] makes once, a directory each, and a way to find
// one another:
//
//	FLOTILLA_SECRETS_FILE=/run/secrets/flotilla
//	FLOTILLA_DIR=/var/lib/api
//	FLOTILLA_PEERS=10.0.0.1:7373,10.0.0.2:7373,10.0.0.3:7373
//	FLOTILLA_EXPECT=3
//	FLOTILLA_EMAIL=admin@example.com
//
// The configuration is the same at the first start, at a restart and on a node that is added later.
// A node that is already a member carries on. A node that finds a cluster joins it. If as many
// nodes as Expect says see one another, and none finds a cluster, they form a new one.
// [ConfigFromEnv] lists all variables. Peers reach each other at Config.Addr, by default port 7373.
// Do not expose that port publicly. A node that joins gets all data at once. It becomes a voter
// after ten seconds of good health. A cluster has at most five voters; further members serve
// clients all the same.
//
// # Guarantees
//
// Every node holds a lease, which a majority of the voters grants. The lease is renewed several
// times within its length: 600 ms at [LAN], 200 ms at [Fast], 3 s at [WAN], 90 ms at [Turbo].
// While its lease lasts, a node may act without asking the others.
//
// Writes, locks and roles are linearizable. Reads are regular: a read is never older than the last
// completed write. A write returns when a majority of the voters has stored it, on disk if they
// have a Dir, and every session in the state has applied it or has expired. A session lasts from
// when a node gets a place in the cluster until it loses its lease or ends. A write also does not
// wait for a session whose process is gone, which shows when its connections were closed and its
// port refuses new ones. So a value that was written through one node can be read at once through
// any other node that has its lease. A write is carried out once, however often it had to be sent.
// Without a majority of the voters a write waits for at most 30 seconds. Then it fails with
// [ErrNoLeader], or with its context's error if the context ends earlier. It may still take effect.
//
// A read is answered from the node's own memory. It needs no network and no majority. A node
// without a lease tries to get one for two seconds. After that it answers with what it has, so
// certificates are served whatever has happened to the rest of the cluster. It returns
// [ErrNotReady] for records that it does not have.
//
// [Node.Hold] runs a function on one node at a time. Its context ends before the lease does. The
// next holder, on any node, begins after that. This is true in a crash, a pause, a partition, and
// when a clock shows the wrong time. It assumes that the rate of every clock is within one per cent
// of the true rate; the time that a clock shows does not matter. On a machine whose clock stops, as
// in suspend to RAM or in a pause that a hypervisor hides, the function may run on after waking,
// until the first answer from the cluster. A write with the context of Hold takes effect only while
// the role is held. Locks of [Storage] are roles without a function. certmagic uses them, and its
// certificates are stored only while the lock is held.
//
// The log, the snapshots and the traffic between nodes are sealed with keys that only the secret
// opens. SECURITY.md describes the attackers against whom that helps.
//
// # Limits
//
// A cluster of two voters does not tolerate the loss of any, one of three tolerates the loss of
// one, and one of five the loss of two. A value has at most [MaxValue] bytes and a name at most
// [MaxName]. The records of programs have at most Config.MaxState bytes, 64 MiB by default, and so
// have certificates, apart from that. The entries of [Node.KV] have Config.MaxRecords. Each node
// keeps all of it in memory. Everybody who has the secret is trusted completely.
//
// Planned, and not in this release: metrics.
package flotilla
