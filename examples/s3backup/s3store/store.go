// Package s3store keeps the backups of a flotilla cluster in a bucket of an S3 store: Amazon's, or
// another one that speaks the same protocol.
//
// A [Store] is a flotilla.BackupStore, for flotilla.Config.Backups. A backup has its name in the
// bucket only when all of it is stored. Small ones are one request, and larger ones are uploaded in
// parts while they are made, so that about 8 MiB are in memory. No file is written.
package s3store

import (
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/minio/minio-go/v7"
)

// Store keeps backups in a bucket. Any goroutine may call its methods. Make one with Open.
type Store struct {
	core     *minio.Core
	endpoint string // for errors
	bucket   string
	prefix   string // empty, or it ends with a slash
}

// key returns the key of the object that holds a backup.
func (s *Store) key(name string) (string, error) {
	if name == "" || name == "." || name == ".." || strings.ContainsAny(name, "/\\") {
		return "", fmt.Errorf("s3store: %q is no name of a backup: it is one of those that are listed", name)
	}
	return s.prefix + name, nil
}

// Load opens a backup. The error wraps fs.ErrNotExist if there is none of that name. ctx bounds the
// reading too.
func (s *Store) Load(ctx context.Context, name string) (io.ReadCloser, error) {
	key, err := s.key(name)
	if err != nil {
		return nil, err
	}
	body, _, _, err := s.core.GetObject(ctx, s.bucket, key, minio.GetObjectOptions{})
	if err != nil {
		return nil, s.failed(ctx, "loading", key, err)
	}
	return &object{ReadCloser: body, failed: func(err error) error { return s.failed(ctx, "loading", key, err) }}, nil
}

// object is the content of an object. Its errors say which one it is.
type object struct {
	io.ReadCloser
	failed func(error) error
}

// Read implements io.Reader.
func (o *object) Read(p []byte) (int, error) {
	n, err := o.ReadCloser.Read(p)
	if err != nil && err != io.EOF {
		err = o.failed(err)
	}
	return n, err
}

// List returns the names of the objects in the directory, in the order of the alphabet. Uploads
// that are not complete are not among them.
func (s *Store) List(ctx context.Context) ([]string, error) {
	var names []string
	for o := range s.core.ListObjectsIter(ctx, s.bucket, minio.ListObjectsOptions{Prefix: s.prefix}) {
		if o.Err != nil {
			return nil, s.failed(ctx, "listing", s.prefix, o.Err)
		}
		if name := strings.TrimPrefix(o.Key, s.prefix); name != "" && !strings.Contains(name, "/") {
			names = append(names, name)
		}
	}
	if err := ctx.Err(); err != nil { // which ends the iteration in silence
		return nil, s.failed(ctx, "listing", s.prefix, err)
	}
	return names, nil
}

// Remove removes a backup. It is no error if there is none of that name.
func (s *Store) Remove(ctx context.Context, name string) error {
	key, err := s.key(name)
	if err != nil {
		return err
	}
	if err := s.core.RemoveObject(ctx, s.bucket, key, minio.RemoveObjectOptions{}); err != nil && !missing(err) {
		return s.failed(ctx, "removing", key, err)
	}
	return nil
}
