//go:build !linux

package netlab

import "errors"

// Available returns an error of one sentence that says why no laboratory can be made here.
func Available() error {
	return errors.New("a laboratory of network namespaces needs Linux")
}

// Main is for TestMain. It does nothing here.
func Main() {}
