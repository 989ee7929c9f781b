// Package vip keeps floating IP addresses on one living node of a cluster at a time, as VRRP and
// CARP do.
//
//	node, err := flotilla.Open(ctx, cfg)
//	…
//	err = vip.Run(ctx, node, vip.Config{Addr: netip.MustParsePrefix("192.0.2.100/24")})
//
// Call Run on every node, with the same Addr.
//
// # Guarantees
//
// No two nodes answer for an address at the same time: in a crash, a stop of the process, a
// partition or a jump of the clock. Config.Quorum says what holds without a majority. The address
// comes back sooner than with VRRP. Other addresses of the interface are never touched.
//
// # Assumptions
//
// Clocks run at nearly the same rate, and do not stop: a machine that sleeps, or that a hypervisor
// pauses in secret, may answer for what was left of its lease when it goes on. The machine runs
// Linux and the process has the capabilities NET_ADMIN and NET_RAW. On other systems, and for
// addresses that a cloud assigns, use a Binder of your own: see Func and Exec. Listen on the
// wildcard address, because a program cannot listen on an address that is not there yet.
//
// # How an address is granted and announced
//
// The cluster grants the address, as a role, to one node, under the lease that the node has from a
// majority. Run puts it into that node's kernel and announces it. It announces it again as long as
// it is held: often in the first minute, then every minute, and at once when the interface's
// hardware address, carrier or ports change or a partition heals. Another machine that claims the
// address is answered and reported: see Config.Conflict. A node that cannot put the address in
// place leaves it to others: see Checker.
//
// # How an address ends with the lease
//
//   - The program removes it as soon as it knows, a fifth of a lease before the end.
//   - If the program dies, its guard removes it within milliseconds. Then it sends the cluster a
//     death notice, so that the next node need not wait for the end of the lease. The guard is a
//     second process of the same binary: the first Run executes /proc/self/exe with the variable
//     FLOTILLA_GUARD_PROCESS in its environment. The init function of this package takes that
//     process over before main; init functions of packages that are initialized earlier do run
//     there. ps shows it as "NAME: flotilla guard". It has no open files of the program and ends
//     with it. A program has one guard: that of flotilla's Config.Guard, if there is one, becomes
//     this one. Config.NoGuard does without it.
//   - If program and guard stand still, the kernel is left. A table of nftables drops everything
//     that concerns the address when the lease ends: the program renews the timeouts in its sets,
//     which count milliseconds. The kernel also removes the address when its lifetime ends, in
//     whole seconds; until then, programs on that very machine do not reach the next owner. Without
//     nftables the lifetime alone ends the address, and the cluster waits for it: this is the
//     hold-down time.
//
// # Planned moves
//
// A move is planned when the program ends, when a better node is back, or after Node.Move. With
// nftables it loses no connection attempt: Run drains the connections, holds new ones back for some
// milliseconds, and passes them on to the next owner as soon as that announces itself. Without
// nftables, the kernel of a client repeats such an attempt a second later.
//
// # Files
//
// run.go competes for the role, owner.go is a tenure, keep.go a time without a lease. They know the
// kernel only as a Place. kernel_linux.go is the Place of this machine, placement_linux.go the
// addresses of one unit there, system_linux.go what all units of the process share: the fence
// (table_linux.go), the guard, the lease and the lifetimes. report.go says what happens, to the
// program and the cluster. The other files are mechanisms.
package vip
