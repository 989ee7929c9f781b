// Package term formats text for terminals: colours, tables, wrapped lines, quantities for people,
// progress, and redrawing in place. Everything it prints fits into 80 columns where that is
// possible, and no name from the network can change the terminal's state.
package term
