package main

import (
	"bytes"
	"io"
	"os"
	"strings"
	"testing"

	"github.com/minio/minio-go/v7/pkg/credentials"
)

// The policy in README.md allows all that a store does in its directory, and nothing beside it.
func TestPolicy(t *testing.T) {
	t.Parallel()
	f := newFront(t)
	c := config(f)
	readme, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, policy, _ := strings.Cut(string(readme), "```json\n")
	policy, _, found := strings.Cut(policy, "```")
	if !found {
		t.Fatal("README.md has no policy")
	}
	// What belongs to a user there belongs to a bucket here, and names the user.
	policy = strings.NewReplacer(
		"my-backups", bucket, "clusters/a", c.Prefix, `"Effect"`, `"Principal": {"AWS": ["`+userKey+`"]}, "Effect"`,
	).Replace(policy)
	if err := client(t).SetBucketPolicy(t.Context(), bucket, policy); err != nil {
		t.Fatal(err)
	}

	c.Credentials = credentials.NewStaticV4(userKey, secretKey, "")
	s := open(t, c)
	for _, size := range []int{10, large} {
		b := content(size)
		if err := save(t, s, "a", b); err != nil {
			t.Fatal(err)
		}
		if got, err := load(t, s, "a"); err != nil || !bytes.Equal(got, b) {
			t.Errorf("%d bytes come back, %v", len(got), err)
		}
	}
	if names, err := s.List(t.Context()); err != nil || len(names) != 1 {
		t.Errorf("what is stored: %q, %v", names, err)
	}
	if err := s.Remove(t.Context(), "a"); err != nil {
		t.Error(err)
	}
	err = s.Save(t.Context(), "a", func(w io.Writer) error {
		if _, err := w.Write(content(large)); err != nil {
			return err
		}
		return errEarly
	})
	if err == nil || err.Error() != errEarly.Error() { // so the parts were removed too
		t.Errorf("a backup that cannot be made: %v", err)
	}
	wantNothing(t, c)

	c.Prefix += "x"
	s = open(t, c)
	denied := []string{"AccessDenied", "must allow s3:PutObject", "s3://" + bucket + "/" + c.Prefix}
	wantError(t, save(t, s, "a", nil), denied...)
	_, err = s.Load(t.Context(), "a")
	wantError(t, err, denied...)
	_, err = s.List(t.Context())
	wantError(t, err, denied...)
	wantError(t, s.Remove(t.Context(), "a"), denied...)
}
