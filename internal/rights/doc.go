// Package rights explains why the kernel refused an action.
//
// An explanation contains the kernel's own error. It names a missing capability, and how to give
// it, only if the process really lacks that capability. Otherwise it says that a filter of system
// calls, a security module or a user namespace may be the cause. The package assumes nothing: it
// reads the effective capabilities of the process at the time of the call. It keeps no state.
package rights
