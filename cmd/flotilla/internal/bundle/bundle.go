// Package bundle writes an archive of texts for those who look for a fault. It is a tar file,
// compressed by gzip. Every text passes a redact.Redactor on its way in.
package bundle

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"io"
	"path"
	"strings"
	"time"

	"github.com/flotilla-ha/flotilla/cmd/flotilla/internal/redact"
)

// Archive is an archive that is being written. After an error what was written is no archive.
type Archive struct {
	gz     *gzip.Writer
	tar    *tar.Writer
	redact *redact.Redactor
	dir    string
	made   time.Time
}

// New returns an archive whose members are all in one directory. The caller closes it.
func New(w io.Writer, dir string, made time.Time, r *redact.Redactor) *Archive {
	gz := gzip.NewWriter(w)
	return &Archive{gz: gz, tar: tar.NewWriter(gz), redact: r, dir: dir, made: made}
}

// JSON adds a value as JSON.
func (a *Archive) JSON(name string, v any) error {
	b, err := json.Marshal(v)
	if err == nil {
		b, err = a.redact.JSON(b)
	}
	if err != nil {
		return err
	}
	return a.add(name, append(b, '\n'))
}

// Text adds a text that may have secrets of any kind.
func (a *Archive) Text(name, text string) error { return a.add(name, []byte(a.redact.Text(text))) }

// Lines adds lines of JSON each.
func (a *Archive) Lines(name, lines string) error {
	var out bytes.Buffer
	for line := range strings.Lines(lines) {
		b, err := a.redact.JSON([]byte(line))
		if err != nil {
			return err
		}
		if err := json.Compact(&out, b); err != nil {
			return err
		}
		out.WriteByte('\n')
	}
	return a.add(name, out.Bytes())
}

// Stacks adds the stacks of goroutines, which were made without the arguments of functions.
func (a *Archive) Stacks(name string, stacks []byte) error {
	return a.add(name, []byte(a.redact.Known(string(stacks))))
}

func (a *Archive) add(name string, content []byte) error {
	err := a.tar.WriteHeader(&tar.Header{
		Typeflag: tar.TypeReg, Name: path.Join(a.dir, name), Mode: 0o600, Size: int64(len(content)), ModTime: a.made,
	})
	if err == nil {
		_, err = a.tar.Write(content)
	}
	return err
}

// Close completes the archive. It does not close what it was written to.
func (a *Archive) Close() error { return errors.Join(a.tar.Close(), a.gz.Close()) }
