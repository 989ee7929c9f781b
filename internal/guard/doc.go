// Package guard tells a cluster that a program is dead, and removes the floating addresses of a
// program that dies or stands still. It works on Linux. Elsewhere Start returns an error.
//
// # What an operator sees
//
// A program with floating addresses, or with flotilla's Config.Guard, has one child process,
// however many addresses and nodes there are. The child is the same binary, started a second time.
// ps shows it as "myprogram: flotilla guard", top and pgrep as flotilla-guard. It sleeps nearly
// always, uses a few megabytes of its own memory, opens no port and no file, and starts nothing. It
// writes to the program's standard error, and only if something is wrong.
//
// # Guarantees
//
//   - The program closes the guard: the guard exits and touches no address.
//   - The program dies in any way (kill -9, panic, os.Exit, out of memory): within milliseconds the
//     guard removes the addresses. Then it sends the death notices, for at most 10 s. Then it
//     removes the nftables table and exits. If it cannot remove the addresses it reports that,
//     retries for 10 s, and sends no death notice, because the next owner would then have the
//     address too.
//   - The program calls exec(2): that closes its end of the socket and counts as its death.
//   - The deadline passes and the program has not renewed the lease (it is stopped or stuck): the
//     guard removes the addresses, and removes each one again that appears before the deadline is
//     extended. The table stays, because it keeps the addresses closed.
//   - The guard is killed: the program starts another one. A guard that is stopped (kill -STOP) is
//     killed and replaced when it has not answered for two seconds.
//   - SIGTERM, SIGHUP, SIGINT, SIGQUIT, SIGABRT and the like do not end it. systemd sends them to
//     all processes of a service, SIGABRT when its watchdog ends a program that hangs, and the
//     guard must outlive the program's drain and its end.
//
// # Limits
//
// A guard without addresses that is stopped (kill -STOP) is not noticed before the next death
// notice is due.
//
// If guard and program are killed together (kill -9 of a control group, OOMPolicy=kill, the end of
// a container), only the lease and the kernel's address lifetimes are left. While a dying program
// dumps core its death cannot be seen; the deadline removes the addresses then. Process 1 of a pid
// namespace, such as a container's program, takes its guard with it: the guard has about a
// millisecond. A container on the host's network should therefore also use the host's pid
// namespace. Start logs this.
//
// # How it works
//
// Start executes /proc/self/exe, so the guard is of the program's own version even if the file was
// replaced. File 3 of the child is a socket, file 4 a shared page of memory, file 5 an eventfd. An
// environment variable names the socket. A package that is initialized earlier and demands other
// variables keeps guards from starting: Start fails and its message can be seen. A program must
// call IsGuard before anything else, and Main if it is a guard. Package reporter does so in its
// init function for guards that send death notices, and package vip for those that remove addresses
// too.
//
// A program has one guard. Its parts have shares of it, from Join. While no part has addresses, the
// guard only sends death notices, and needs no permission. The first part with addresses has it
// replaced by one that can remove them. There must not be two: one would send a death notice, which
// admits the next owner, while the other has yet to remove an address.
//
// The addresses, the table and the death notices (the guarded set) go through the socket and are
// acknowledged. An address is put into the kernel only after the guard knows it. The deadline moves
// several times a second, so it is a number in the page: writing it wakes nobody. The guard sleeps
// until the deadline that it read last, and reads it again. The eventfd wakes it for an earlier
// one.
//
// The guard notices the program's death in three ways, and the first one counts: a robust futex of
// a thread that does nothing else (see robust_linux.go), the end of the socket, and a pidfd.
//
// # Files
//
// Each uses only those before it: guard.go (types), message.go, cleanup.go; say, arrivals, robust,
// page and proof (mechanisms); child and watcher (in the guard); process, parent and share (in the
// program).
package guard
