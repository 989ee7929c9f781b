//go:build !race

package frontend

// raceEnabled makes the largest tests smaller, which .ci/run also runs without the race detector.
const raceEnabled = false
