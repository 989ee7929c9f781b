//go:build !unix

package preflight

import "io/fs"

// exposed returns false: there are no such rights here.
func exposed(fs.FileInfo) bool { return false }

// foreign returns nothing: owners are not compared here.
func foreign(fs.FileInfo) string { return "" }
