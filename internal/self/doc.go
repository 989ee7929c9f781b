// Package self holds what a node knows about itself: its ID, its process incarnation, its name and
// its address.
//
// A node keeps its ID for as long as it keeps its directory. Each process that runs on the
// directory has an incarnation of its own. The package also makes up new IDs and incarnations.
package self
