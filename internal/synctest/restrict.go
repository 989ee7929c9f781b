//go:build race && !go1.27

package synctest

import "runtime"

const restricts = true

// restrict leaves one P, and returns what gives the others back.
func restrict() func() {
	procs := runtime.GOMAXPROCS(1)
	return func() { runtime.GOMAXPROCS(procs) }
}
