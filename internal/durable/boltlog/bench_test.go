package boltlog

import (
	"path/filepath"
	"testing"

	"github.com/flotilla-ha/flotilla/internal/durable/disktest"
)

// BenchmarkOpenLog checks and opens a log of 1024 entries of 4 KiB.
func BenchmarkOpenLog(b *testing.B) {
	path := filepath.Join(b.TempDir(), fileName)
	must(b, Create(path, Vote{}, Front{}))
	l := openLog(b, path)
	for i := uint64(0); i < 16; i++ {
		store(b, l, disktest.Entries(64*i+1, 64*i+64, 1, 4<<10)...)
	}
	closeLog(b, l)
	b.Run("check", func(b *testing.B) {
		for b.Loop() {
			inspect(b, path)
		}
	})
	b.Run("open", func(b *testing.B) {
		for b.Loop() {
			closeLog(b, openLog(b, path))
		}
	})
}
