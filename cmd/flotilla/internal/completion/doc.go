// Package completion writes scripts that complete the program's commands in bash, zsh and fish. It
// takes all words from the table of commands. The names of nodes and roles are not completed,
// because that would ask the cluster at each key press.
package completion
