package s3store

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/minio/minio-go/v7/pkg/credentials"
)

func TestOpen(t *testing.T) {
	good := func() Config {
		return Config{Endpoint: "s3.example", Bucket: "backups", Credentials: credentials.NewStaticV4("id", "very-secret", "")}
	}
	type opened struct{ Endpoint, Prefix, Region string }
	for name, test := range map[string]struct {
		change func(*Config)
		want   opened
	}{
		"a host":       {func(*Config) {}, opened{"https://s3.example", "", "us-east-1"}},
		"with a port":  {func(c *Config) { c.Endpoint = "127.0.0.1:9000" }, opened{"https://127.0.0.1:9000", "", "us-east-1"}},
		"a URL":        {func(c *Config) { c.Endpoint = "https://s3.example/" }, opened{"https://s3.example", "", "us-east-1"}},
		"no TLS":       {func(c *Config) { c.Endpoint = "http://[::1]:9000" }, opened{"http://[::1]:9000", "", "us-east-1"}},
		"Amazon":       {func(c *Config) { c.Endpoint = "s3.eu-central-1.amazonaws.com" }, opened{"https://s3.eu-central-1.amazonaws.com", "", "eu-central-1"}},
		"a region":     {func(c *Config) { c.Region = "garage" }, opened{"https://s3.example", "", "garage"}},
		"a directory":  {func(c *Config) { c.Prefix = "a" }, opened{"https://s3.example", "a/", "us-east-1"}},
		"two of them":  {func(c *Config) { c.Prefix = "a/b/" }, opened{"https://s3.example", "a/b/", "us-east-1"}},
		"only a slash": {func(c *Config) { c.Prefix = "/" }, opened{"https://s3.example", "", "us-east-1"}},
	} {
		t.Run(name, func(t *testing.T) {
			c := good()
			test.change(&c)
			s, err := Open(c)
			if err != nil {
				t.Fatal(err)
			}
			region, err := s.core.GetBucketLocation(t.Context(), c.Bucket) // which is known without asking
			if diff := cmp.Diff(test.want, opened{s.endpoint, s.prefix, region}); diff != "" || err != nil {
				t.Errorf("%v\n%s", err, diff)
			}
		})
	}
	for want, change := range map[string]func(*Config){
		"Endpoint (S3_ENDPOINT) is missing":              func(c *Config) { c.Endpoint = "" },
		"Endpoint (S3_ENDPOINT) is no address":           func(c *Config) { c.Endpoint = "https://:9000" },
		"Endpoint (S3_ENDPOINT) has credentials in it":   func(c *Config) { c.Endpoint = "https://id:very-secret@s3.example" },
		"Endpoint (S3_ENDPOINT) must begin with https":   func(c *Config) { c.Endpoint = "ftp://s3.example" },
		"Endpoint (S3_ENDPOINT) must not go on behind":   func(c *Config) { c.Endpoint = "https://s3.example/backups" },
		"Bucket (S3_BUCKET) is missing":                  func(c *Config) { c.Bucket = "" },
		"Bucket (S3_BUCKET) is no name of a bucket":      func(c *Config) { c.Bucket = "a" },
		`Prefix (S3_PREFIX) is "a//b": it must be names`: func(c *Config) { c.Prefix = "a//b" },
		`Prefix (S3_PREFIX) is "/a": it must be names`:   func(c *Config) { c.Prefix = "/a" },
		`Prefix (S3_PREFIX) is "../a": it must be names`: func(c *Config) { c.Prefix = "../a" },
	} {
		t.Run(want, func(t *testing.T) {
			c := good()
			change(&c)
			_, err := Open(c)
			if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "very-secret") {
				t.Errorf("the error is %v", err)
			}
		})
	}
}

// Credentials come from the environment, or else from a file.
func TestCredentials(t *testing.T) {
	file := filepath.Join(t.TempDir(), "credentials")
	if err := os.WriteFile(file, []byte("[default]\naws_access_key_id=of-file\naws_secret_access_key=s\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct{ id, secret, file, want string }{
		"environment": {"of-environment", "s", file, "of-environment"},
		"file":        {"", "", file, "of-file"},
		"half":        {"of-environment", "", file, ""},
		"none":        {"", "", "/no/such/file", ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Setenv("AWS_ACCESS_KEY_ID", test.id)
			t.Setenv("AWS_SECRET_ACCESS_KEY", test.secret)
			t.Setenv("AWS_SHARED_CREDENTIALS_FILE", test.file)
			t.Setenv("AWS_PROFILE", "")
			c, err := fromEnvironment()
			if test.want == "" {
				if err == nil || !strings.Contains(err.Error(), "there are no credentials") {
					t.Errorf("the error is %v", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if v, err := c.GetWithContext(nil); err != nil || v.AccessKeyID != test.want {
				t.Errorf("the key is %q, %v", v.AccessKeyID, err)
			}
		})
	}
}
