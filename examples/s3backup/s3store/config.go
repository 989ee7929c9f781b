package s3store

import (
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"
	"github.com/minio/minio-go/v7/pkg/s3utils"
)

const (
	tries        = 3                // of a request that may succeed later
	defaultStall = 30 * time.Second // the default of Config.Stall
	plainRegion  = "us-east-1"      // what stores that have no regions accept
)

// Config says where the bucket is. Endpoint and Bucket are needed.
type Config struct {
	// Endpoint is the address of the store: a host with or without a port, or a URL. It uses TLS
	// unless it is a URL that begins with http://.
	Endpoint string

	// Bucket is the name of the bucket, which must exist.
	Bucket string

	// Prefix is the directory of the backups in the bucket, such as "clusters/a". Empty: they are at
	// its top.
	Prefix string

	// Region is the region of the bucket. Empty: that of an Endpoint of Amazon, or else us-east-1,
	// which most other stores accept.
	Region string

	// Credentials are those of the store. Nil: AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and
	// AWS_SESSION_TOKEN, or else the file of AWS_SHARED_CREDENTIALS_FILE (~/.aws/credentials). The
	// role of a machine or container at Amazon is credentials.NewIAM("").
	Credentials *credentials.Credentials

	// Roots are the authorities that certify the store. Nil: those of the system.
	Roots *x509.CertPool

	// Stall is for how long nothing may move in a request. Then it is given up, and tried again. 0: 30
	// seconds.
	Stall time.Duration
}

// FromEnv reads a Config from the environment. Credentials are read later, by Open.
//
//	S3_ENDPOINT   Endpoint
//	S3_BUCKET     Bucket
//	S3_PREFIX     Prefix
//	S3_REGION     Region
//	S3_CA_FILE    file with PEM certificates: Roots
func FromEnv() (Config, error) {
	c := Config{
		Endpoint: os.Getenv("S3_ENDPOINT"), Bucket: os.Getenv("S3_BUCKET"), Prefix: os.Getenv("S3_PREFIX"), Region: os.Getenv("S3_REGION"),
	}
	file := os.Getenv("S3_CA_FILE")
	if file == "" {
		return c, nil
	}
	pem, err := os.ReadFile(file)
	if err != nil {
		return c, fmt.Errorf("s3store: S3_CA_FILE names a file that cannot be read: %w", err)
	}
	c.Roots = x509.NewCertPool()
	if !c.Roots.AppendCertsFromPEM(pem) {
		return c, fmt.Errorf("s3store: S3_CA_FILE names a file without a PEM certificate, %s", file)
	}
	return c, nil
}

// Open returns the Store of a bucket. It checks the Config and asks the store nothing, so a node
// can start while the store is down.
func Open(c Config) (*Store, error) {
	u, err := endpoint(c.Endpoint)
	if err != nil {
		return nil, wrong("Endpoint", err)
	}
	if c.Bucket == "" {
		return nil, wrong("Bucket", errors.New("is missing: name a bucket that exists"))
	}
	if err := s3utils.CheckValidBucketName(c.Bucket); err != nil {
		return nil, wrong("Bucket", fmt.Errorf("is no name of a bucket: %w", err))
	}
	prefix, err := directory(c.Prefix)
	if err != nil {
		return nil, wrong("Prefix", err)
	}
	if c.Credentials == nil {
		if c.Credentials, err = fromEnvironment(); err != nil {
			return nil, err
		}
	}
	if c.Region == "" && !s3utils.IsAmazonEndpoint(*u) {
		c.Region = plainRegion // or else the store would be asked
	}
	if c.Stall <= 0 {
		c.Stall = defaultStall
	}
	secure := u.Scheme == "https"
	transport, err := minio.DefaultTransport(secure)
	if err != nil {
		return nil, fmt.Errorf("s3store: %w", err)
	}
	if secure && c.Roots != nil {
		transport.TLSClientConfig.RootCAs = c.Roots
	}
	core, err := minio.NewCore(u.Host, &minio.Options{
		Creds: c.Credentials, Secure: secure, Region: c.Region, MaxRetries: tries,
		Transport: impatient{next: transport, limit: c.Stall},
	})
	if err != nil {
		return nil, wrong("Endpoint", err)
	}
	return &Store{core: core, endpoint: u.String(), bucket: c.Bucket, prefix: prefix}, nil
}

// wrong says what is wrong with a field, which has a variable of the same name.
func wrong(field string, err error) error {
	return fmt.Errorf("s3store: %s (S3_%s) %w", field, strings.ToUpper(field), err)
}

// endpoint reads an address. Its errors do not repeat it, since it may have a password in it.
func endpoint(text string) (*url.URL, error) {
	if text == "" {
		return nil, errors.New("is missing: give the address of the store, such as s3.eu-central-1.amazonaws.com")
	}
	if !strings.Contains(text, "://") {
		text = "https://" + text
	}
	u, err := url.Parse(text)
	switch {
	case err != nil || u.Hostname() == "":
		return nil, errors.New("is no address: give a host, host:port or URL")
	case u.User != nil:
		return nil, errors.New("has credentials in it: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY instead")
	case u.Scheme != "https" && u.Scheme != "http":
		return nil, errors.New("must begin with https://, or with http:// for a store without TLS")
	case u.Path != "" && u.Path != "/" || u.RawQuery != "" || u.Fragment != "":
		return nil, errors.New("must not go on behind the host and port: the bucket goes into S3_BUCKET")
	}
	return &url.URL{Scheme: u.Scheme, Host: u.Host}, nil
}

// directory returns what begins the keys of the objects in a directory of a bucket.
func directory(prefix string) (string, error) {
	prefix = strings.TrimSuffix(prefix, "/")
	if prefix == "" {
		return "", nil
	}
	for part := range strings.SplitSeq(prefix, "/") {
		if part == "" || part == "." || part == ".." {
			return "", fmt.Errorf("is %q: it must be names with single slashes between them", prefix)
		}
	}
	if err := s3utils.CheckValidObjectNamePrefix(prefix); err != nil {
		return "", err
	}
	return prefix + "/", nil
}

// fromEnvironment returns the credentials of the environment, or of the file that it names.
func fromEnvironment() (*credentials.Credentials, error) {
	c := credentials.NewChainCredentials([]credentials.Provider{&credentials.EnvAWS{}, &credentials.FileAWSCredentials{}})
	v, err := c.GetWithContext(&credentials.CredContext{Client: http.DefaultClient})
	if err != nil {
		return nil, fmt.Errorf("s3store: reading the credentials: %w", err)
	}
	if v.AccessKeyID == "" || v.SecretAccessKey == "" {
		return nil, errors.New("s3store: there are no credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_SHARED_CREDENTIALS_FILE")
	}
	return c, nil
}
