package state

import (
	"cmp"
	"slices"
	"strconv"
)

// Code is the outcome of a command.
type Code byte

// These are the outcomes of commands. Their numbers are in snapshots.
const (
	// CodeOK says that the command did what it says.
	CodeOK Code = 0

	// CodeEnded says that the session has ended, so the command did nothing.
	CodeEnded Code = 1

	// CodeQueued says that another claim holds the role, and that this one waits.
	CodeQueued Code = 2

	// CodeHeld says that another claim holds the role, and that this one does not wait.
	CodeHeld Code = 3

	// CodeNotHeld says that the claim does not hold the role, or is gone.
	CodeNotHeld Code = 4

	// CodeIsDir says that there are keys below the key.
	CodeIsDir Code = 5

	// CodeNotDir says that a key above the key has a value.
	CodeNotDir Code = 6

	// CodeFull says that the state has no room.
	CodeFull Code = 7

	// CodeChanged says that the state is not the one that the command depends on.
	CodeChanged Code = 8

	// CodeNoTransferee says that no waiting claim fits.
	CodeNoTransferee Code = 9

	// A process that this one's directory does not know has had a session.
	codeSuperseded Code = 10

	// CodeUnready says that a member has not acknowledged what the command depends on.
	CodeUnready Code = 11

	// From here on: the condition of that number in a WriteItems is not true.
	codeConflict Code = 128
)

// conflict returns the outcome of a WriteItems whose condition n is not true.
func conflict(n int) Code { return codeConflict + Code(n) }

// Conflict returns which condition of a WriteItems is not true, and false if the outcome says
// nothing about one.
func (c Code) Conflict() (n int, ok bool) { return int(c) - int(codeConflict), c >= codeConflict }

// String names the outcome.
func (c Code) String() string {
	names := [...]string{"ok", "ended", "queued", "held", "not held", "is a directory", "not a directory", "full", "changed", "no transferee", "superseded", "unready"}
	if int(c) < len(names) {
		return names[c]
	}
	if n, ok := c.Conflict(); ok {
		return "condition " + strconv.Itoa(n) + " is not true"
	}
	return "unknown"
}

// Answer is the outcome of a command, and the index of the entry that it was in.
type Answer struct {
	// Seq is the number of the command in its session, and Index that of the entry.
	Seq, Index uint64

	// Code is the outcome.
	Code Code
}

func bySeq(a Answer, seq uint64) int { return cmp.Compare(a.Seq, seq) }

// insertAnswer returns those answers that are not acked, and one more. The answers are in the order
// of their seq.
func insertAnswer(answers []Answer, acked uint64, a Answer) []Answer {
	first, _ := slices.BinarySearchFunc(answers, acked+1, bySeq)
	at, _ := slices.BinarySearchFunc(answers, a.Seq, bySeq)
	at = max(at, first)
	return slices.Concat(answers[first:at], []Answer{a}, answers[at:])
}
