package importer

import (
	"maps"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/flotilla-ha/flotilla"
	"github.com/flotilla-ha/flotilla/cmd/flotilla/internal/records"
)

// write creates files below a directory.
func write(t *testing.T, dir string, files map[string]string) {
	t.Helper()
	for name, content := range files {
		path := filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func open(t *testing.T, dir, prefix string) *Source {
	t.Helper()
	s, err := Open(dir, prefix, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// reasons scans and reads everything, and returns why groups are refused; "" means that they are
// not.
func reasons(t *testing.T, s *Source, between func()) map[string]string {
	t.Helper()
	plan, err := s.Scan()
	if err != nil {
		t.Fatal(err)
	}
	between()
	got := make(map[string]string)
	for _, g := range plan.Groups {
		got[g.Name] = ""
		if _, err := s.Read(g); err != nil {
			got[g.Name] = err.Error()
		}
	}
	return got
}

// Only regular files inside the directory are read, and every other entry has a reason.
func TestRead(t *testing.T) {
	dir, outside := t.TempDir(), t.TempDir()
	long := strings.Repeat(strings.Repeat("n", 200)+"/", 6) + "x"
	big := strings.Repeat("x", flotilla.MaxValue+1)
	write(t, outside, map[string]string{"file": "outside", "dir/file": "outside"})
	write(t, dir, map[string]string{
		"fits": big[1:], "big": big, "gone": "1", "bad\nname": "1", "\xff/file": "1", "sub/\xfe": "1", long: "1",
		"certificates/i/a.example/a.example.json": big,
	})
	for name, to := range map[string]string{
		"out":       filepath.Join(outside, "file"),
		"outdir":    filepath.Join(outside, "dir"),
		"nowhere":   "none",
		"within":    "fits",
		"withindir": "certificates",
	} {
		if err := os.Symlink(to, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	want := map[string]string{
		"fits":                     "",
		"within":                   "",
		"bad\nname":                "",
		"sub/\xfe":                 "",
		"big":                      "it has more than 1048576 bytes, the limit of a record",
		"gone":                     "it cannot be read (no such file or directory)",
		"\xff":                     "it cannot be read (invalid argument)",
		long:                       "the name has 1207 bytes, the limit is 1024",
		"out":                      "it is a symbolic link that leads out of the directory, or nowhere",
		"outdir":                   "it is a symbolic link that leads out of the directory, or nowhere",
		"nowhere":                  "it is a symbolic link that leads out of the directory, or nowhere",
		"withindir":                "it is a symbolic link to a directory, and those are not followed",
		"certificates/i/a.example": "a.example.json: it has more than 1048576 bytes, the limit of a record",
	}
	got := reasons(t, open(t, dir, ""), func() {
		if err := os.Remove(filepath.Join(dir, "gone")); err != nil {
			t.Fatal(err)
		}
	})
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("reasons (-want +got):\n%s", diff)
	}
}

// A socket is not opened.
func TestReadSocket(t *testing.T) {
	dir := t.TempDir()
	socket, err := net.Listen("unix", filepath.Join(dir, "socket"))
	if err != nil {
		t.Skip("needs a file system with Unix sockets: ", err)
	}
	defer socket.Close()
	want := map[string]string{"socket": "it is not a regular file"}
	if diff := cmp.Diff(want, reasons(t, open(t, dir, ""), func() {})); diff != "" {
		t.Errorf("reasons (-want +got):\n%s", diff)
	}
}

// A prefix is cut off, and a forgotten one is noticed.
func TestPrefix(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, map[string]string{"acme/certificates/i/a/a.crt": "1", "acme/x": "1", "acme/y.lock": "1", "index.html": "1"})
	for prefix, want := range map[string]struct {
		names []string
		left  map[records.Kind]int
		hint  string
	}{
		"":       {[]string{"acme/certificates/i/a/a.crt", "acme/x", "index.html"}, map[records.Kind]int{records.Lock: 1}, "acme"},
		"acme":   {[]string{"certificates/i/a", "x"}, map[records.Kind]int{records.Lock: 1, records.Outside: 1}, ""},
		"/acme/": {[]string{"certificates/i/a", "x"}, map[records.Kind]int{records.Lock: 1, records.Outside: 1}, ""},
		"other":  {nil, map[records.Kind]int{records.Outside: 4}, ""},
	} {
		t.Run(prefix, func(t *testing.T) {
			plan, err := open(t, dir, prefix).Scan()
			if err != nil {
				t.Fatal(err)
			}
			var names []string
			for _, g := range plan.Groups {
				names = append(names, g.Name)
			}
			if diff := cmp.Diff(want.names, names); diff != "" {
				t.Errorf("groups (-want +got):\n%s", diff)
			}
			if !maps.Equal(want.left, plan.Left) || plan.Prefix != want.hint {
				t.Errorf("left out %v, hint %q; want %v, %q", plan.Left, plan.Prefix, want.left, want.hint)
			}
		})
	}
}
