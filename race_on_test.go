//go:build race

package flotilla

// raceDetector says that the tests were built with the race detector.
const raceDetector = true
