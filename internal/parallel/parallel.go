// Package parallel sets how many tests run at a time, for packages whose tests mostly wait.
package parallel

import (
	"flag"
	"runtime"
	"strconv"
)

// Tests has up to n parallel tests run at a time, unless the flag -parallel says otherwise.
// TestMain calls it after flag.Parse.
func Tests(n int) {
	// A flag that repeats the default cannot be told from none.
	if f := flag.Lookup("test.parallel"); f.Value.String() == strconv.Itoa(runtime.GOMAXPROCS(0)) {
		f.Value.Set(strconv.Itoa(n))
	}
}
