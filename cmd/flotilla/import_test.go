package main

import (
	"context"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/flotilla-ha/flotilla"
	"github.com/flotilla-ha/flotilla/clustertest"
	"github.com/flotilla-ha/flotilla/internal/synctest"
)

// leftovers are records that mean nothing to a cluster.
func leftovers() map[string]string {
	return map[string]string{
		"locks/issue_cert_a.example.lock": "{}",
		"issue_cert_a.example.lock":       "2024-01-01T00:00:00Z",
		"rw_test_123":                     "x",
		"last_clean.json":                 "{}",
		"acme/" + issuer + "/challenge_tokens/a.example.json": "{}",
		"certificates/" + issuer + "/a.example/83746251":      "half a k",
	}
}

const leftoversLine = "left out: locks (2), challenge tokens (1), storage tests (1), cleaning marks (1), unfinished files (1)\n"

// From a FileStorage into a cluster, and out of it, is byte for byte the same.
func TestImportThenExport(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := clustertest.New(t, 3, nil)
		c.Settle()
		o := operatorOf(c)
		source, target := t.TempDir(), filepath.Join(t.TempDir(), "deep", "target")
		year := time.Now().Add(365 * 24 * time.Hour)
		records := merge(
			certificate(t, "a.example", year), certificate(t, "*.b.example", year), certificate(t, "::1", year),
			account(t, "admin@a.example"), account(t, "default"),
			map[string]string{"ocsp/a.example-12345678": "\x30\x82", "instance.uuid": "1-2", "pki/authorities/local/root.crt": "x", "empty": ""},
		)
		store(t, source, merge(records, leftovers()))

		o.run(t, "import", "-dry-run", source).want(t, exitOK, "dry run: nothing is stored", "certificates        3         0              0        0")
		if got := stored(t, c.Nodes[0]); len(got) != 0 {
			t.Errorf("a dry run has stored %v", got)
		}
		got := o.run(t, "import", source)
		want := `                taken  replaced  already there  refused
certificates        3         0              0        0
ACME accounts       2         0              0        0
OCSP staples        1         0              0        0
other records       3         0              0        0
` + leftoversLine
		if diff := cmp.Diff(said{exitOK, want, ""}, got, cmp.AllowUnexported(said{})); diff != "" {
			t.Errorf("the report (-want +got):\n%s", diff)
		}
		for i := range c.Nodes {
			if diff := cmp.Diff(records, stored(t, c.Nodes[i])); diff != "" {
				t.Errorf("node %d has (-want +got):\n%s", i, diff)
			}
		}
		o.run(t, "import", source).want(t, exitOK, "certificates        0         0              3        0", "other records       0         0              3        0")

		// what a cluster makes for itself does not leave it
		for key, value := range leftovers() {
			if err := c.Nodes[1].Storage().Store(t.Context(), key, []byte(value)); err != nil {
				t.Fatal(err)
			}
		}
		o.run(t, "export", "-plain-keys", target).want(t, exitOK, "files           written  already there  refused\ncertificates          9              0        0\n", leftoversLine)
		if diff := cmp.Diff(records, files(t, target)); diff != "" {
			t.Errorf("the exported files (-want +got):\n%s", diff)
		}
		o.run(t, "export", "-plain-keys", target).want(t, exitOK, "certificates          0              9        0\n")
	})
}

// What cannot be taken is refused with its reason, and the rest goes on.
func TestImportRefuses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := clustertest.New(t, 1, nil)
		c.Settle()
		o := operatorOf(c)
		year := time.Now().Add(365 * 24 * time.Hour)
		dir := t.TempDir()
		site := func(name string) string { return "certificates/" + issuer + "/" + name + "/" + name }
		change := func(m map[string]string, ext, value string) map[string]string {
			for k := range m {
				if strings.HasSuffix(k, ext) {
					m[k] = value
				}
			}
			return m
		}
		other := certificate(t, "other.example", year)
		missing := certificate(t, "missing.example", year)
		delete(missing, site("missing.example")+".json")
		good := merge(certificate(t, "good.example", year), certificate(t, "old.example", time.Now().Add(-time.Hour)), account(t, "good@a.example"))
		store(t, dir, merge(good,
			missing,
			change(certificate(t, "pair.example", year), ".key", other[site("other.example")+".key"]),
			change(certificate(t, "nokey.example", year), ".key", "no key"),
			change(certificate(t, "nocrt.example", year), ".crt", "no certificate"),
			change(certificate(t, "badcrt.example", year), ".crt", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"),
			change(certificate(t, "badjson.example", year), ".json", "{"),
			change(certificate(t, "bigjson.example", year), ".json", strings.Repeat(" ", flotilla.MaxValue+1)),
			change(certificate(t, "three.example", year), ".json", strings.Repeat(" ", flotilla.MaxValue-2)+"{}"),
			change(account(t, "bad@a.example"), ".json", "\xff"),
			change(account(t, "nokey@a.example"), ".key", "no key"),
			map[string]string{"big": strings.Repeat("x", flotilla.MaxValue+1), "fits": strings.Repeat("x", flotilla.MaxValue), "bad\nname": "1"},
			map[string]string{strings.Repeat(strings.Repeat("n", 200)+"/", 6) + "x": "1"},
		))
		outside := t.TempDir()
		store(t, outside, map[string]string{"file": "outside", "dir/file": "outside"})
		for name, to := range map[string]string{
			"out": filepath.Join(outside, "file"), "outdir": filepath.Join(outside, "dir"), "nowhere": "none",
			"within": "fits", "withindir": "certificates",
		} {
			if err := os.Symlink(to, filepath.Join(dir, name)); err != nil {
				t.Fatal(err)
			}
		}
		got := o.run(t, "import", dir)
		got.want(t, exitRefused,
			"certificates        3         0              0        7\n", "ACME accounts       1         0              0        2\n", "other records       3         0              0        6\n",
			"remark: certificates/"+issuer+"/old.example: the certificate has expired on 1999-12-31\n",
			"missing.example: missing.example.json is missing, and a certificate is its three files together\n",
			"pair.example: the private key does not belong to the certificate, or is malformed (tls: private key does not match public key)\n",
			"nokey.example: the private key does not belong to the certificate, or is malformed (tls: failed to find any PEM data in key input)\n",
			"nocrt.example: the certificate is malformed (there is no PEM certificate in it)\n",
			"badcrt.example: the certificate is malformed (x509: ",
			"badjson.example: badjson.example.json is malformed (",
			"bigjson.example: bigjson.example.json: it has more than 1048576 bytes, the limit of a record\n",
			"bad@a.example: bad.json is malformed (it is not JSON)\n",
			"nokey@a.example: nokey.key is malformed (it is not a PEM private key)\n",
			"refused: big: it has more than 1048576 bytes, the limit of a record\n",
			"nnn/x: the name has 1207 bytes, the limit is 1024\n",
			"refused: out: it is a symbolic link that leads out of the directory, or nowhere\n",
			"refused: outdir: it is a symbolic link that leads out of the directory, or nowhere\n",
			"refused: nowhere: it is a symbolic link that leads out of the directory, or nowhere\n",
			"refused: withindir: it is a symbolic link to a directory, and those are not followed\n",
		)
		want := merge(good, certificate(t, "three.example", year), map[string]string{"fits": strings.Repeat("x", flotilla.MaxValue), "bad\nname": "1"})
		want["within"] = want["fits"]
		if diff := cmp.Diff(keysOf(want), keysOf(stored(t, c.Nodes[0]))); diff != "" {
			t.Errorf("stored (-want +got):\n%s", diff)
		}
		if strings.Contains(got.out, "PRIVATE KEY") {
			t.Error("the report repeats a key")
		}
	})
}

// What the cluster has with another content stays, unless the operator says otherwise; a certificate is one thing.
func TestImportOverwrites(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := clustertest.New(t, 1, nil)
		c.Settle()
		o := operatorOf(c)
		dir, year := t.TempDir(), time.Now().Add(365*24*time.Hour)
		older, newer := certificate(t, "a.example", year), certificate(t, "a.example", year)
		for key, value := range merge(newer, map[string]string{"k": "new"}) {
			if err := c.Nodes[0].Storage().Store(t.Context(), key, []byte(value)); err != nil {
				t.Fatal(err)
			}
		}
		store(t, dir, merge(older, map[string]string{"k": "old", "other": "1"}))
		base := "certificates/" + issuer + "/a.example/a.example"
		reason := "refused: certificates/" + issuer + "/a.example: the cluster has another value of " + base + ".crt, " + base + ".key; give -overwrite to replace it\n"
		o.run(t, "import", "-dry-run", dir).want(t, exitRefused, reason, "refused: k: the cluster has another value of k; ")
		o.run(t, "import", dir).want(t, exitRefused, reason, "other records       1         0              0        1")
		if diff := cmp.Diff(merge(newer, map[string]string{"k": "new", "other": "1"}), stored(t, c.Nodes[0])); diff != "" {
			t.Errorf("without -overwrite (-want +got):\n%s", diff)
		}
		o.run(t, "import", "-dry-run", "-overwrite", dir).want(t, exitOK, "certificates        0         1              0        0", "other records       0         1              1        0")
		o.run(t, "import", "-overwrite", dir).want(t, exitOK, "certificates        0         1              0        0", "other records       0         1              1        0")
		if diff := cmp.Diff(merge(older, map[string]string{"k": "old", "other": "1"}), stored(t, c.Nodes[0])); diff != "" {
			t.Errorf("with -overwrite (-want +got):\n%s", diff)
		}
	})
}

func TestImportFromS3(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := clustertest.New(t, 1, nil)
		c.Settle()
		o := operatorOf(c)
		year := time.Now().Add(365 * 24 * time.Hour)
		key, other := [32]byte([]byte("an encryption key of 32 letters.")), [32]byte([]byte("another one that has 32 letters."))
		keys := t.TempDir()
		keyFile, otherFile := filepath.Join(keys, "key"), filepath.Join(keys, "other")
		if err := os.WriteFile(keyFile, key[:], 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(otherFile, append(other[:], '\n'), 0o600); err != nil {
			t.Fatal(err)
		}
		records := merge(certificate(t, "a.example", year), account(t, "a@a.example"), map[string]string{"max": strings.Repeat("x", flotilla.MaxValue)})
		bucket := t.TempDir()
		objects := map[string]string{"acme/issue_cert_a.example.lock": "2024-01-01T00:00:00Z", "index.html": "not ours"}
		for name, value := range records {
			objects["acme/"+name] = sealed(&key, value)
		}
		store(t, bucket, objects)

		o.run(t, "import", "-from-s3", "-s3-key-file", keyFile, bucket).want(t, exitUsage, "the names in DIR seem to have a prefix; give -prefix acme")
		wrong := o.run(t, "import", "-from-s3", "-s3-key-file", otherFile, "-prefix", "acme", bucket)
		wrong.want(t, exitRefused, "certificates        0         0              0        1", "it does not open with this key")
		o.run(t, "import", "-from-s3", "-prefix", "acme", bucket).want(t, exitRefused, "refused: max: it has more than", "certificates        0         0              0        1", "ACME accounts       0         0              0        1")
		if got := stored(t, c.Nodes[0]); len(got) != 0 {
			t.Errorf("stored with a wrong key: %v", keysOf(got))
		}

		object := filepath.Join(bucket, "acme", "damaged")
		if err := os.WriteFile(object, []byte(sealed(&key, "x")[:30]), 0o600); err != nil {
			t.Fatal(err)
		}
		o.run(t, "import", "-from-s3", "-s3-key-file", keyFile, "-prefix", "/acme/", bucket).want(t, exitRefused,
			"certificates        1         0              0        0", "left out: locks (1), not below the prefix (1)",
			"refused: damaged: it has 30 bytes, and a sealed object has 40 at the least")
		if diff := cmp.Diff(records, stored(t, c.Nodes[0])); diff != "" {
			t.Errorf("stored (-want +got):\n%s", diff)
		}

		// in clear, and without a prefix
		clear := t.TempDir()
		store(t, clear, records)
		o.run(t, "import", "-from-s3", clear).want(t, exitOK, "certificates        0         0              1        0")
		o.run(t, "import", t.TempDir()).want(t, exitOK, "there is nothing to bring over")
	})
}

// The cluster dies in the middle. What was taken is whole, and the next run completes it.
func TestImportIsInterrupted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := clustertest.New(t, 3, nil)
		c.Settle()
		c.SetLatency(5 * time.Millisecond)
		o := operatorOf(c)
		o.terminal = true
		dir, year := t.TempDir(), time.Now().Add(365*24*time.Hour)
		all := make(map[string]string)
		for i := range 100 {
			maps.Copy(all, certificate(t, string(rune('a'+i/10))+string(rune('a'+i%10))+".example", year))
		}
		store(t, dir, all)
		done := make(chan said)
		go func() { done <- o.run(t, "import", dir) }()
		for len(stored(t, c.Nodes[0])) < 60 {
			time.Sleep(time.Millisecond)
		}
		c.Kill(1)
		c.Kill(2)
		first := <-done
		first.want(t, exitUnreachable, "repeat it to complete it", "n0:7373: the cluster has no leader", "n1:7373: nobody listens there", "\rimporting: ")
		for _, i := range []int{1, 2} {
			c.Restart(i)
		}
		c.Settle()
		have := stored(t, c.Nodes[0])
		if len(have) < 60 || len(have) >= len(all) || len(have)%3 != 0 {
			t.Errorf("%d records are there after the interruption", len(have))
		}
		second := o.run(t, "import", dir)
		second.want(t, exitOK, "certificates  ")
		if diff := cmp.Diff(all, stored(t, c.Nodes[0])); diff != "" {
			t.Errorf("stored (-want +got):\n%s", diff)
		}
		if strings.Contains(first.out, "nothing to bring over") || strings.Contains(second.out, "certificates      100") || !strings.HasSuffix(strings.Split(second.out, "\n")[1], "  0") {
			t.Errorf("the second run took all anew:\n%s", second.out)
		}
	})
}

// An operator who interrupts it is told how far it came.
func TestImportIsCancelled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := clustertest.New(t, 1, nil)
		c.Settle()
		o := operatorOf(c)
		dir := t.TempDir()
		store(t, dir, map[string]string{"a": "1", "b": "1"})
		ctx, cancel := context.WithCancel(t.Context())
		o.dial = func(context.Context, string, string) (net.Conn, error) {
			cancel()
			return nil, context.Canceled
		}
		var out, errOut strings.Builder
		p := &program{stdout: &out, stderr: &errOut, env: func(name string) string { return o.env[name] }, dial: o.dial}
		said{p.run(ctx, []string{"import", dir}), out.String(), errOut.String()}.want(t, exitRefused, "interrupted; repeat it to complete it")
	})
}

func keysOf(m map[string]string) []string { return slices.Sorted(maps.Keys(m)) }
