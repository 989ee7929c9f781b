// Package cli is the frame that all commands of the program run in: the table of commands, flags
// and arguments, help, and exit codes. It knows no single command but "help".
//
// A command is a Command value. Run looks it up, parses its flags, checks the number of its
// arguments, calls its action, and turns the action's error into a message and an exit code.
package cli
