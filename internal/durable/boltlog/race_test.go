//go:build race

package boltlog

const raceEnabled = true
