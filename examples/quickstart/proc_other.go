//go:build !linux

package main

import "syscall"

// procAttr asks for nothing: a node notices by the end of its input that its parent has died.
func procAttr() *syscall.SysProcAttr { return nil }
