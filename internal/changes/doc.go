// Package changes tells those who watch items of programs what has changed. A [Feed] gets every
// change from the state machine. A [Watcher] yields the changes of the items whose names begin with
// a prefix.
//
// # Guarantees
//
//   - A watcher yields changes in the order of their versions, and none twice. All changes of one
//     log entry come together.
//   - It loses none. A slow watcher may skip a change of an item when it yields a newer one of the
//     same item.
//   - It ends with ErrLagged if deletions that it has not yielded are forgotten. The state keeps
//     the newest 16,384 deletions, or 1 MiB of their names.
//   - What a watcher yields is in the node's state already.
//   - The state machine never waits: Add takes no lock that a watcher holds.
//
// # Assumptions
//
// One goroutine calls Add and Reset, after it has published the state. Run runs.
//
// # Flow
//
//	state machine → Add: the newest changes, in a list of bounded size
//	Run: finds the prefixes of a change's name in a tree of groups → wakes the watchers of each
//	Watcher.Next: reads the list from its position on; if its part of the list is gone, it reads the
//	state instead: the items that are newer than its position, and the deletions
//
// Run wakes watchers of a prefix in steps, one each millisecond, so that they do not take the
// processors from those who write. A step has 32 watchers, or a sixteenth of them if that is more.
// So a round takes 16 ms at most. Changes that come meanwhile begin another one behind it. Each
// watcher is woken once in a round, and yields all changes until then.
//
// Watchers of the same prefix share a group. A group remembers the version of the newest change
// with its prefix. So a watcher whose prefix is quiet does not lag, however much others change,
// unless that comes so fast that Run cannot follow: 32,768 changes, or 32 MiB.
package changes
