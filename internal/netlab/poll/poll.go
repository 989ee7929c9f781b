// Package poll waits for what the kernel does not notify about.
package poll

import "time"

// Until calls f every millisecond until it returns true. It returns false if that takes longer than
// atMost.
func Until(atMost time.Duration, f func() bool) bool {
	for end := time.Now().Add(atMost); !f(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			return false
		}
	}
	return true
}
