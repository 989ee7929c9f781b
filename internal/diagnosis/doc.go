// Package diagnosis describes a process and its node for those who look for a fault: which build it
// is, what it takes of the machine, what its goroutines do, what it has logged.
//
// # Guarantees
//
// A description has nothing that is secret by its kind: no argument of a function, no label of a
// goroutine, no variable of the environment, no name of a file but that of the data directory, and
// of the flags of the build only a few that say for what it was built. Texts in it, such as a URL
// in a setting or an error in the log, may still hold a password. Who shows them to others must
// take it out.
//
// A [Journal] keeps of the log what the program's logger takes, at the level that this has, and at
// most 256 KiB of it. The description of the goroutines has a bounded length too. Making it stops
// the process for a moment, as long as a garbage collection does.
package diagnosis
