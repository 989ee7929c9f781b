//go:build race

package flotilla

// RaceEnabled makes the largest tests smaller, which .ci/run also runs without the race detector.
const RaceEnabled = true
