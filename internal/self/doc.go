// Package self says who a node is: its identity and that of its process, the name that people know
// it by, and its address. All of it stays the same while the process runs.
package self
