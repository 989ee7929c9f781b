// Package docscheck holds tests that compare the documents with the code: names of fields and
// variables, errors and log lines that are quoted, lengths of lines and of the README. It parses
// the code and imports none of it. It has no code of its own.
package docscheck
