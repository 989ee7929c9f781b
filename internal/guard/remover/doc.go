// Package remover removes addresses from the kernel by netlink, for guards.
//
// It works on Linux, and needs the capability NET_ADMIN: Open reports that it is missing. A removal
// also succeeds if the address was gone before. The socket is open from the beginning, because a
// process that must clean up quickly should not begin by opening one. It is apart from package
// guard so that only programs with floating addresses link netlink.
package remover
