// Package show prints a cluster for a terminal: tables, remarks, and lines for what has changed.
//
// What there is to say is in the module's package internal/view, which the status page uses too.
// Here are only columns, colours and line breaks. The package neither asks a node nor reads a
// clock. Nothing that a node has said can change the state of the terminal.
package show
