package s3store

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"strings"
	"syscall"

	"github.com/minio/minio-go/v7"
)

// failed says what was done with which object, why it has failed, and what helps. It returns nil
// for nil.
func (s *Store) failed(ctx context.Context, doing, key string, err error) error {
	if err == nil {
		return nil
	}
	what := fmt.Sprintf("s3store: %s s3://%s/%s at %s", doing, s.bucket, key, s.endpoint)
	if ctx.Err() != nil {
		return fmt.Errorf("%s: it has not ended in time: %w", what, context.Cause(ctx))
	}
	var answer minio.ErrorResponse
	if errors.As(err, &answer) {
		if answer.Code == minio.NoSuchKey {
			return fmt.Errorf("%s: %w", what, fs.ErrNotExist)
		}
		return fmt.Errorf("%s: the store answers %s (%w)%s", what, answer.Code, err, before("; ", answered(answer)))
	}
	if request := (*url.Error)(nil); errors.As(err, &request) {
		err = request.Err // the rest of it is in what
	}
	return fmt.Errorf("%s: %w%s", what, err, before("; ", unanswered(err)))
}

// before puts a text before one that is not empty.
func before(first, text string) string {
	if text == "" {
		return ""
	}
	return first + text
}

// missing reports whether err says that there is no such object or upload.
func missing(err error) bool {
	var answer minio.ErrorResponse
	return errors.As(err, &answer) && (answer.Code == minio.NoSuchKey || answer.Code == minio.NoSuchUpload)
}

// answered returns what helps against an answer of the store.
func answered(r minio.ErrorResponse) string {
	switch r.Code {
	case minio.NoSuchBucket:
		return "make the bucket, or correct S3_BUCKET"
	case minio.AccessDenied:
		return "the policy of the access key must allow s3:PutObject, s3:GetObject, s3:DeleteObject and s3:AbortMultipartUpload for the objects, and s3:ListBucket for the bucket"
	case minio.InvalidAccessKeyID, minio.SignatureDoesNotMatch:
		return "correct AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
	case "ExpiredToken", "InvalidToken":
		return "the credentials have ended: renew AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN"
	case minio.RequestTimeTooSkewed:
		return "set the clock of this machine, or that of the store"
	case minio.AuthorizationHeaderMalformed, minio.InvalidRegion, "PermanentRedirect":
		if r.Region != "" {
			return "set S3_REGION=" + r.Region
		}
		return "set S3_REGION to the region of the bucket"
	}
	switch {
	case r.StatusCode == http.StatusInsufficientStorage:
		return "make room in the store"
	case r.StatusCode >= 500, r.StatusCode == http.StatusTooManyRequests:
		return "the store is overloaded or broken: look at it, and try again"
	}
	return ""
}

// unanswered returns what helps if the store gives no answer.
func unanswered(err error) string {
	var dns *net.DNSError
	var certificate *tls.CertificateVerificationError
	var record tls.RecordHeaderError
	switch {
	case errors.Is(err, errStalled):
		return "is the store overloaded, or the network to it broken?"
	case errors.Is(err, syscall.ECONNREFUSED):
		return "start the store, or correct S3_ENDPOINT"
	case errors.As(err, &dns):
		return "correct S3_ENDPOINT, or the name server"
	case errors.As(err, &certificate):
		return "name the authority of the store in S3_CA_FILE, or correct S3_ENDPOINT"
	case errors.As(err, &record), strings.Contains(err.Error(), "HTTP response to HTTPS client"):
		return "the store has no TLS there: give its port with TLS, or write http:// before S3_ENDPOINT"
	case errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE), errors.Is(err, net.ErrClosed),
		strings.Contains(err.Error(), "onnection closed"):
		return "the connection was cut: try again"
	}
	return ""
}
