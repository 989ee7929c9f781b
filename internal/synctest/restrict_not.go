//go:build !race || go1.27

package synctest

const restricts = false

func restrict() func() { return func() {} }
