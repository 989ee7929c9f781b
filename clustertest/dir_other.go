//go:build !linux

package clustertest

// memoryDir returns an empty name: there is no place in memory that all such systems have.
func memoryDir() (string, error) { return "", nil }
