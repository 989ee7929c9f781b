// Package guard takes floating addresses away when the program that put them there dies or stands still. It works on Linux; elsewhere
// Start says that it does not.
//
// # What a person sees
//
// A program that holds floating addresses has a child process from its first address on, one however many they are. It is the same binary, started a
// second time, and appears in ps as
//
//	myprogram: flotilla guard
//
// and in top and pgrep as flotilla-guard. It sleeps nearly always, has a few megabytes of memory of its own (the code it shares with the program),
// opens no port and no file, starts nothing, and writes to the program's standard error only, and only if something is wrong.
//
// It ends with the program and not before: ctrl-C does not reach it, since it is in a session of its own, and it ignores SIGTERM, SIGHUP, SIGINT, SIGQUIT and
// others that mean "end", so that systemd, which sends them to every process of a service, does not take it away while the program still drains.
//
//   - The program closes the guard: it exits, and touches no address.
//   - The program dies in whatever way (kill -9, panic, os.Exit, out of memory, return from main without closing): within milliseconds the guard removes
//     the addresses, all at once, then tells the cluster that the program is dead (its "will"), for which it takes
//     up to 10 s if nobody listens, then removes the nftables table, and exits. If it cannot remove the addresses it says so, tries for 10 s, and does not execute the will, since
//     the next owner would then have the address too.
//   - The program replaces itself with exec(2): its end of the socket closes, which counts as its death. The addresses go. The guard stays as a zombie
//     until the new program ends or reaps it, because exec keeps the parent.
//   - The lease's deadline passes and the program is there, but has not renewed it (it is stopped, or stuck): the guard removes the addresses, and, as long
//     as the deadline is not extended, removes each again that appears. The table stays: it is what keeps the address closed. The program learns
//     of it when it runs again.
//     While a dying program dumps core nothing of it can be seen from outside, so that this is what removes the addresses then.
//   - The guard is killed: the program starts another, at once the first time and more slowly if that goes on. Killed along with the program (kill -9 of
//     a whole control group, systemd's OOMPolicy=kill, pkill -9 -f with the program's name, a container that ends), it does nothing; then the kernel's lifetimes of the addresses are
//     left. A guard that has been stopped (kill -STOP) is killed and replaced when it has not answered for two seconds; if the program dies before that, it
//     does nothing, and stays until it is continued.
//
// Process 1 of a pid namespace, which is what a container's program usually is, takes all others of the namespace with it as it dies. The guard has
// a millisecond or so before it is killed: often enough, not always. If the container has its own network namespace, the addresses go with that. If it uses the host's
// network, let it also use the host's pid namespace, or rely on the kernel's lifetimes and on nftables. Start logs this.
//
// # How it works
//
// Start executes /proc/self/exe, so that a guard is of the program's own version even if the file has been replaced since. File 3 of the child is one end of
// a socket pair, file 4 a page of memory that both have mapped, file 5 an eventfd. The environment has the variable that says so, a few of Go's to keep it small, and
// GODEBUG and LD_LIBRARY_PATH of the program's. A package that demands another variable while it is initialized, before this one, keeps guards from
// starting; its message is seen, and Start fails. A program must call IsGuard first thing, and Main if it is one; package vip does so as it is initialized.
//
// What is to be removed goes through the socket and is acknowledged, so that an address is put into the kernel only after the guard knows of it. The
// deadline, which moves several times a second, is a number in the page (nanoseconds of CLOCK_MONOTONIC): moving it on wakes nobody. The guard
// sleeps until the deadline it read last, looks again, and acts if it has not moved. A deadline that comes nearer is announced by the eventfd.
//
// The end of the program is seen in three ways, whichever comes first: all its threads are ending (a robust futex wakes the guard to look, see
// herald_linux.go; it does not have to wait until the program's memory has been given back); the socket ends; or a pidfd says so, in case some child of the
// program holds the socket open.
package guard
