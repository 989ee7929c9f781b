// Package notify has what goroutines use to wait for each other: a Signal that wakes everyone who
// waits for a change, loops that wait for a condition, and Tasks, the goroutines of one owner.
//
// # Waiting for a condition
//
// A condition is a function that looks at some state. Whoever changes that state calls
// Signal.Notify after the change. Until calls the condition at once and again after each Notify,
// and returns when it is true. Retry and Loop do the same for actions that may fail and for steps
// that also depend on time.
//
// No change is missed. The three subscribe to their signals before they look for the first time, so
// a Notify during a look causes another look. Several calls of Notify between two looks cause one
// look: a Signal says that something is different now, not what it was in between.
//
// Code that selects on other channels as well uses Signal.Wait. It must take the channel before it
// looks, for the same reason.
//
// # Guarantees and assumptions
//
//   - Notify never blocks, and holds no lock that a condition could need.
//   - Conditions, actions and steps run on the caller's goroutine, one at a time.
//   - They are always called once, even if ctx has ended before.
//   - All time is package time's, so a synctest bubble controls it.
package notify
