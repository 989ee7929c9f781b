// Package plaintext words values for people: quantities, short forms of IDs, and texts that others
// have chosen. The flotilla command, the status page and logs share it, so that they say the same.
//
// # Guarantees
//
//   - No text that has passed Safe changes the state of a terminal, breaks a line, or changes the
//     direction in which its surroundings are read.
//   - All functions depend on their arguments alone.
//
// It is not HTML that comes out: a page escapes it as it does every other text.
package plaintext
