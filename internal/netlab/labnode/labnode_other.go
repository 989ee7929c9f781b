//go:build !linux

package labnode

// Main is for TestMain. It does nothing here.
func Main() {}
