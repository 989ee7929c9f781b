// Package diagnosis describes a process and its node for those who look for a fault: which build it
// is, what it takes of the machine, what its goroutines do.
//
// # Guarantees
//
// A description has nothing that is secret by its kind: no argument of a function, no label of a
// goroutine, no variable of the environment, no name of a file but that of the data directory, and
// of the flags of the build only a few that say for what it was built. Texts in it, such as a URL
// in a setting, may still hold a password. Who shows them to others must take it out.
//
// The description of the goroutines has a bounded length. Making it stops the process for a moment,
// as long as a garbage collection does.
package diagnosis
