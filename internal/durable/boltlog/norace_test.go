//go:build !race

package boltlog

const raceEnabled = false
