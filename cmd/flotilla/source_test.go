package main

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func openSource(t *testing.T, dir string) *source {
	t.Helper()
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { root.Close() })
	return &source{root: root}
}

// What is no file is not opened, and what cannot be read is told.
func TestScanUnreadable(t *testing.T) {
	dir := t.TempDir()
	store(t, dir, map[string]string{"gone": "1", "\xff/file": "1", "sub/\xfe": "1"})
	socket, err := net.Listen("unix", filepath.Join(dir, "socket"))
	if err != nil {
		t.Skip("needs a file system with Unix sockets: ", err)
	}
	defer socket.Close()
	s := openSource(t, dir)
	c, err := s.scan()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(dir, "gone")); err != nil {
		t.Fatal(err)
	}
	want := map[string]string{
		"gone":     "it cannot be read (no such file or directory)",
		"socket":   "it is no regular file",
		"\xff":     "it cannot be read (invalid argument)",
		"sub/\xfe": "",
	}
	for _, g := range c.groups {
		text, ok := want[g.name]
		delete(want, g.name)
		_, err := s.read(g)
		if !ok || text == "" != (err == nil) || err != nil && !strings.Contains(err.Error(), text) {
			t.Errorf("%q: %v, want %q", g.name, err, text)
		}
	}
	if len(want) > 0 {
		t.Errorf("not seen: %q", want)
	}
}

func TestKindOf(t *testing.T) {
	for key, want := range map[string]kind{
		"certificates/i/a.example/a.example.key":             kindCertificate,
		"certificates/i/wildcard_.a/wildcard_.a.json":        kindCertificate,
		"certificates/i/a.lock/a.lock.crt":                   kindCertificate,
		"certificates/i/a.example/a.example.key.compromised": kindOther,
		"certificates/i/a.example/b.example.key":             kindOther,
		"certificates/i/a.example/sub/a.example.key":         kindOther,
		"certificates/i/a.example/12345678":                  kindUnfinished,
		"acme/i/users/default/default.key":                   kindAccount,
		"acme/i/challenge_tokens/a.example.json":             kindToken,
		"acme/i/users":                                       kindOther,
		"ocsp/a.example-0123":                                kindStaple,
		"ocsp/0123":                                          kindUnfinished,
		"mine/0123":                                          kindOther,
		"0123":                                               kindOther,
		"ocsp":                                               kindOther,
		"locks/x":                                            kindLock,
		"locks":                                              kindOther,
		"issue_cert_a.lock":                                  kindLock,
		"rw_test_1":                                          kindTest,
		"mine/rw_test_1":                                     kindOther,
		"last_clean.json":                                    kindMark,
		"mine/last_clean.json":                               kindOther,
		tempPrefix + "x":                                     kindUnfinished,
	} {
		if got, _ := kindOf(key); got != want {
			t.Errorf("%s is %s, want %s", key, got, want)
		}
	}
}
