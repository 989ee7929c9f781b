package replica

import "testing"

// A batch has a limit in bytes, but for a single command that is larger.
func TestBatchBytes(t *testing.T) {
	attemptOf := func(size int) *attempt { return &attempt{Proposal: Proposal{Entry: make([]byte, size)}} }
	for _, test := range []struct {
		name  string
		sizes []int
		fits  bool // the last one
	}{
		{"one", []int{1}, true},
		{"a large one alone", []int{2 * batchBytes}, true},
		{"exactly", []int{batchBytes - 1, 1}, true},
		{"one byte more", []int{batchBytes - 1, 2}, false},
		{"after a large one", []int{2 * batchBytes, 1}, false},
	} {
		var b batch
		fits := false
		for _, size := range test.sizes {
			fits = b.add(attemptOf(size))
		}
		if fits != test.fits {
			t.Errorf("%s: fits %v, want %v", test.name, fits, test.fits)
		}
		if sent := len(b.request().Proposals); sent != len(b.attempts) {
			t.Errorf("%s: %d of %d are sent", test.name, sent, len(b.attempts))
		}
	}
}
