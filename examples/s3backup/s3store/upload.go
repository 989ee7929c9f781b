package s3store

import (
	"bytes"
	"context"
	"crypto/md5"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"io"
	"time"

	"github.com/minio/minio-go/v7"
)

const (
	partSize = 8 << 20 // of all parts of an upload but the last; S3 wants at least 5 MiB

	// How long removing the parts of an upload that has failed may take, and that of one whose context
	// has ended.
	tidyingUp = 10 * time.Second
	hurried   = 1500 * time.Millisecond
)

// Save stores what write writes. The object appears when all of it is stored, and replaces one of
// the same name. After an error there is no object, or a whole one if only the answer of the store
// was lost. Parts that could not be removed are not listed; the error then names them.
func (s *Store) Save(ctx context.Context, name string, write func(io.Writer) error) error {
	key, err := s.key(name)
	if err != nil {
		return err
	}
	u := &upload{store: s, key: key}
	err = write(writerFunc(func(p []byte) (int, error) { return u.write(ctx, p) }))
	if err == nil {
		err = u.finish(ctx)
	}
	if err != nil {
		err = errors.Join(err, u.abort(ctx))
	}
	return err
}

// upload is an object that is being stored. Of one that fits into a part, nothing is sent before
// its end.
type upload struct {
	store *Store
	key   string
	id    string // empty: nothing was sent yet
	parts []minio.CompletePart
	buf   []byte // what was not sent yet
	err   error  // what has failed
}

// write adds to the upload. After an error it does nothing more.
func (u *upload) write(ctx context.Context, p []byte) (written int, err error) {
	for len(p) > 0 && u.err == nil {
		if len(u.buf) == partSize {
			u.err = u.sendPart(ctx)
			continue
		}
		n := min(len(p), partSize-len(u.buf))
		u.buf = append(u.buf, p[:n]...)
		p, written = p[n:], written+n
	}
	return written, u.err
}

// sendPart sends what was not sent yet as a part.
func (u *upload) sendPart(ctx context.Context) error {
	s := u.store
	if u.id == "" {
		id, err := s.core.NewMultipartUpload(ctx, s.bucket, u.key, minio.PutObjectOptions{})
		if err != nil {
			return s.failed(ctx, "storing", u.key, err)
		}
		u.id = id
	}
	number := len(u.parts) + 1
	md5Sum, sha := sums(u.buf)
	part, err := s.core.PutObjectPart(ctx, s.bucket, u.key, u.id, number, bytes.NewReader(u.buf), int64(len(u.buf)),
		minio.PutObjectPartOptions{Md5Base64: md5Sum, Sha256Hex: sha, DisableContentSha256: true})
	if err != nil {
		return s.failed(ctx, "storing", u.key, err)
	}
	u.parts = append(u.parts, minio.CompletePart{PartNumber: number, ETag: part.ETag})
	u.buf = u.buf[:0]
	return nil
}

// finish sends the rest, and makes the object appear.
func (u *upload) finish(ctx context.Context) error {
	if u.err != nil {
		return u.err
	}
	s := u.store
	if u.id == "" {
		md5Sum, sha := sums(u.buf)
		_, err := s.core.PutObject(ctx, s.bucket, u.key, bytes.NewReader(u.buf), int64(len(u.buf)), md5Sum, sha,
			minio.PutObjectOptions{DisableContentSha256: true})
		return s.failed(ctx, "storing", u.key, err)
	}
	if err := u.sendPart(ctx); err != nil {
		return err
	}
	_, err := s.core.CompleteMultipartUpload(ctx, s.bucket, u.key, u.id, u.parts, minio.PutObjectOptions{})
	return s.failed(ctx, "storing", u.key, err)
}

// abort removes the parts that were sent, also for a moment after the end of ctx.
func (u *upload) abort(ctx context.Context) error {
	if u.id == "" {
		return nil
	}
	limit := tidyingUp
	if ctx.Err() != nil {
		limit = hurried
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), limit)
	defer cancel()
	s := u.store
	err := s.core.AbortMultipartUpload(ctx, s.bucket, u.key, u.id)
	if missing(err) {
		return nil
	}
	return s.failed(ctx, "removing the parts of", u.key, err)
}

// sums returns the checksums by which the store notices damage. Buckets with object lock need that
// of MD5.
func sums(b []byte) (md5Base64, sha256Hex string) {
	short, long := md5.Sum(b), sha256.Sum256(b)
	return base64.StdEncoding.EncodeToString(short[:]), hex.EncodeToString(long[:])
}

type writerFunc func(p []byte) (int, error)

// Write implements io.Writer.
func (f writerFunc) Write(p []byte) (int, error) { return f(p) }
