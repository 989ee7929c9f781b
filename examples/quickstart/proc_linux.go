package main

import "syscall"

// procAttr asks the kernel to kill a node when its parent dies, even one that is stopped and cannot see its input end.
func procAttr() *syscall.SysProcAttr { return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} }
