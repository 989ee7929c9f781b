package main

import "syscall"

// procAttr makes the kernel kill a node when its parent dies. A stopped node could not see the end
// of its input.
func procAttr() *syscall.SysProcAttr { return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} }
