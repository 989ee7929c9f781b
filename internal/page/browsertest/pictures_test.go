package browsertest

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/chromedp/chromedp"
)

// TestPictures writes the pictures of the documentation.
func TestPictures(t *testing.T) {
	if *pictures == "" {
		t.Skip("-pictures names no directory")
	}
	b := browser(t)
	all := states(t)
	for _, shot := range []struct {
		file, state, scheme string
		width, height       int64
	}{
		{"status-healthy-light", "healthy", "light", 1280, 1480},
		{"status-healthy-dark-phone", "healthy", "dark", 390, 1180},
		{"status-lost-node-light", "lost node", "light", 1280, 1180},
		{"status-expired-dark", "expired", "dark", 1280, 1640},
	} {
		t.Run(shot.file, func(t *testing.T) {
			_, url := serve(t, all[shot.state])
			tb := open(t, b)
			tb.scheme(shot.scheme)
			tb.size(shot.width, shot.height)
			tb.show(url)
			png := run(tb, chromedp.CaptureScreenshot())
			if err := os.WriteFile(filepath.Join(*pictures, shot.file+".png"), png, 0o644); err != nil {
				t.Fatal(err)
			}
			t.Logf("%d KiB", len(png)>>10)
		})
	}
}
