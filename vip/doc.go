// Package vip keeps floating IP addresses on one node of a cluster at a time, and on one that lives: what VRRP and CARP are for. It
// differs in what it promises: no two nodes answer for an address at the same time, in a crash, a pause, a partition or a jump of the
// clock, as long as clocks run at nearly the same rate; and the address comes back sooner.
//
//	node, err := flotilla.Open(ctx, cfg)
//	…
//	err = vip.Run(ctx, node, vip.Config{Addr: netip.MustParsePrefix("192.0.2.100/24")})
//
// Run on every node, with the same Addr. The cluster grants the address, as a role, to one of them, under the lease that the node has of a
// majority; Run puts it into the kernel there and announces it. When the lease ends, however that comes, the address is gone by then:
//
//   - The program removes it as soon as it knows, a fifth of a lease before the end.
//   - If the program dies, its guard does, in milliseconds. The guard is a second process of the same binary: the first Run of a program starts it,
//     by executing /proc/self/exe with the variable FLOTILLA_GUARD in its environment, and this package's init function takes that process
//     over before main is reached; init functions of packages that are initialized earlier do run there. It shows in ps as "NAME: flotilla guard", has no
//     open files of the program, and ends with it. It also tells the cluster, with a credential good for nothing else, that the program is dead, so that
//     the next node need not wait for the lease to end. Config.NoGuard does without.
//   - If program and guard stand still, or with the machine's whole user space, the kernel alone is left: a table of nftables, whose set
//     with time-outs in milliseconds the program refreshes while it has the lease, drops all that has to do with the address once the lease
//     is over. A lifetime in whole seconds also removes the address from the kernel: programs on that very machine reach the next owner
//     then. Where there is no nftables that is what ends the address, and the cluster waits for so long before it grants it anew.
//
// While an address is held it is announced, so that neighbours and switches do not forget where it is: often in the first minute, then
// every minute, and at once when the interface's hardware address, carrier or ports change or a partition heals. Another machine that
// claims the address is answered and told of: see Config.Conflict. A node that cannot put the address in place leaves it to others: see Checker.
//
// On a planned move, as when the program ends, when a better node is back, or by Node.Move, no connection attempt is lost where nftables is there: connections are
// drained, new ones are held back for some milliseconds, and what has been held back is passed on to the next owner as soon as it announces itself.
// Elsewhere an attempt in that moment is repeated by the client's kernel a second later.
//
// It needs Linux with the capabilities NET_ADMIN and NET_RAW. On other systems, and for addresses that a cloud assigns, use a Binder of your own: see Func and
// Exec. Listen on the wildcard address: an address that is not there yet cannot be listened on.
package vip
