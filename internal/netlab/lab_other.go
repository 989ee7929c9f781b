//go:build !linux

package netlab

import "errors"

// Available says in one sentence why there is no laboratory here.
func Available() error {
	return errors.New("a laboratory of network namespaces needs Linux")
}

// Main is for TestMain. It does nothing here.
func Main() {}
