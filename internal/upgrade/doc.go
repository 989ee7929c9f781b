// Package upgrade raises the cluster version, on the leader, when every member supports the next
// one.
//
// # When
//
// The version says which commands may be in the log. An older program stops at a command that it
// does not know. So the version is raised when no member needs an older program any more:
//
//   - At once in a cluster that no older program was ever in: its members are those that formed it,
//     each in its first process.
//   - Else when the present process of every member has supported the next version for [Rest]. In
//     that time an operator can still go back to the program before, node by node.
//   - At once if an operator asks for it.
//
// It goes up by one at a time. It never goes down.
//
// # Guarantees
//
// The version is not raised over a member that is away, or whose present process does not support
// it: [state.RaiseVersion] names the sessions whose processes have said so, and the state machine
// compares them with those that there are when the entry is applied.
//
// # Assumptions
//
// A process supports what it has said in its greeting. The leader's clock runs: the rest is elapsed
// time of one leader, and begins again with the next one.
package upgrade
