//go:build race && !go1.27

package synctest

import "runtime"

const restricts = true

// restrict leaves one P. The function that it returns restores the others.
func restrict() func() {
	procs := runtime.GOMAXPROCS(1)
	return func() { runtime.GOMAXPROCS(procs) }
}
