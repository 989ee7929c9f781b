package diagnosis

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"runtime/pprof"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// Neither what a function was called with nor the labels of a goroutine are shown; where it waits
// is.
func TestStacks(t *testing.T) {
	begun, end := make(chan struct{}), make(chan struct{})
	defer close(end)
	pprof.Do(t.Context(), pprof.Labels("token", "canary-label"), func(context.Context) {
		go waitWith([4]uint64{0x5ec4e75ec4e70001, 0x5ec4e75ec4e70002}, begun, end)
	})
	<-begun
	raw := make([]byte, 1<<20)
	raw = raw[:runtime.Stack(raw, true)]
	if !strings.Contains(string(raw), "0x5ec4e75ec4e70001") {
		t.Fatalf("the runtime does not show the argument, so this shows nothing:\n%s", raw)
	}
	got := string(Stacks())
	if strings.Contains(got, "5ec4e7") || strings.Contains(got, "canary-label") || strings.Contains(got, "(0x") {
		t.Errorf("an argument or a label is shown:\n%s", got)
	}
	for _, part := range []string{"diagnosis.waitWith(…)\n\t", "diagnosis_test.go:", "created by ", "goroutine "} {
		if !strings.Contains(got, part) {
			t.Errorf("%q is missing:\n%s", part, got)
		}
	}
}

//go:noinline
func waitWith(secret [4]uint64, begun, end chan struct{}) {
	close(begun)
	<-end
	runtime.KeepAlive(secret)
}

func TestPlainStacks(t *testing.T) {
	const full = "goroutine 1 [chan receive, 2 minutes, locked to thread]:\n" +
		"net/http.(*conn).serve(0xc000, {0x1, 0x2}, ...)\n\t/src/server.go:12 +0x1f\n" +
		"main.main.func1()\n\t/src/main.go:1\n...additional frames elided...\ncreated by main.main in goroutine 1\n\t/src/main.go:7 +0x1\n\n" +
		"goroutine 2 [running, {\"a\": \"b\"}]:\nmain.f({0x12, 0x34})\n"
	const want = "goroutine 1 [chan receive, 2 minutes, locked to thread]:\n" +
		"net/http.(*conn).serve(…)\n\t/src/server.go:12 +0x1f\n" +
		"main.main.func1(…)\n\t/src/main.go:1\n...additional frames elided...\ncreated by main.main in goroutine 1\n\t/src/main.go:7 +0x1\n\n" +
		"goroutine 2 [running …]:\nmain.f(…)\n"
	if diff := cmp.Diff(want, string(plainStacks([]byte(full), 1<<20))); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	for n := range len(full) {
		got := string(plainStacks([]byte(full[:n]), n))
		if !strings.HasPrefix(want, got) || strings.Contains(got, "0x12") {
			t.Errorf("cut after %d bytes it is %q", n, got)
		}
	}
}

func TestReport(t *testing.T) {
	dir := t.TempDir()
	for name, size := range map[string]int{"a": 1000, "b": 24} {
		if err := os.WriteFile(filepath.Join(dir, name), make([]byte, size), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	r := Report{ID: "1", Settings: map[string]string{"Timing": "lan"}, Build: OfBuild(), Process: OfProcess(), Disk: OfDisk(dir)}
	if r.Build.Go != runtime.Version() || r.Process.PID != os.Getpid() || r.Process.Goroutines == 0 || r.Process.HeapBytes == 0 {
		t.Errorf("the report is %+v", r)
	}
	if r.Disk.Bytes != 1024 || r.Disk.Files != 2 || r.Disk.Err != "" {
		t.Errorf("the directory is %+v", r.Disk)
	}
	got, err := Decode(r.Encode())
	if diff := cmp.Diff(r, got); diff != "" || err != nil {
		t.Errorf("after a round trip, error %v (-want +got):\n%s", err, diff)
	}
	if d := OfDisk(filepath.Join(dir, "none")); d.Files != 0 {
		t.Errorf("a directory that is not there: %+v", d)
	}
	if d := OfDisk(""); d != (Disk{Free: -1}) {
		t.Errorf("no directory: %+v", d)
	}
}

// A report of another version has other fields.
func FuzzDecode(f *testing.F) {
	f.Add(Report{ID: "1", Build: OfBuild()}.Encode())
	f.Add([]byte(`{"ID":"1","New":{"A":[1]}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := Decode(b)
		if err != nil {
			var syntax *json.SyntaxError
			if errors.As(err, &syntax) && json.Valid(b) {
				t.Errorf("valid JSON is refused: %v", err)
			}
			return
		}
		if again, err := Decode(r.Encode()); err != nil || !cmp.Equal(r.ID, again.ID) {
			t.Errorf("it changes in a round trip: %v", err)
		}
	})
}
