// Package reporter makes a program able to be its own guard, as far as death notices go. Importing
// it is all that is needed.
//
// A guard is a second process of the same binary: see package guard. The init function of this
// package takes over a process that was started as one with the duty guard.Notices, before main is
// reached. Init functions of packages that are initialized earlier do run there. In every other
// process it only looks at one environment variable. The package does nothing on systems without
// guards.
//
// Package vip does the same for guards that also remove addresses. A program without floating
// addresses links neither netlink nor nftables.
package reporter
