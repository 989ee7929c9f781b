package state

import (
	"cmp"
	"slices"
)

// Code is the outcome of a command.
type Code byte

// The outcomes. Their numbers are in snapshots.
const (
	CodeOK           Code = 0
	CodeEnded        Code = 1 // the session has ended, so the command did nothing
	CodeQueued       Code = 2 // another claim holds the role, and this one waits
	CodeHeld         Code = 3 // another claim holds the role, and this one does not wait
	CodeNotHeld      Code = 4 // the claim does not hold the role, or is gone
	CodeIsDir        Code = 5 // the key has keys below it
	CodeNotDir       Code = 6 // a key above it has a value
	CodeFull         Code = 7 // the state has no room
	CodeChanged      Code = 8 // the state is not the one that the command depends on
	CodeNoTransferee Code = 9 // no waiting claim fits

	codeSuperseded Code = 10 // a process that this one's directory does not know has had a session
)

// String names the outcome.
func (c Code) String() string {
	names := [...]string{"ok", "ended", "queued", "held", "not held", "is a directory", "not a directory", "full", "changed", "no transferee", "superseded"}
	if int(c) < len(names) {
		return names[c]
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

// insertAnswer returns the answers, which are in the order of their seq, with one more.
func insertAnswer(answers []Answer, a Answer) []Answer {
	at, _ := slices.BinarySearchFunc(answers, a.Seq, bySeq)
	return slices.Insert(slices.Clone(answers), at, a)
}
