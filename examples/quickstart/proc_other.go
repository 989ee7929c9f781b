//go:build !linux

package main

import "syscall"

// procAttr sets nothing: a node sees the end of its input when its parent dies.
func procAttr() *syscall.SysProcAttr { return nil }
