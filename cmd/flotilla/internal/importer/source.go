package importer

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"

	"github.com/flotilla-ha/flotilla"
	"github.com/flotilla-ha/flotilla/internal/remote"
)

// Source is a directory of records.
type Source struct {
	root   *os.Root
	prefix string    // is cut off the names; ends with a slash or is empty
	key    ObjectKey // opens sealed objects
}

// Open opens a directory. The prefix is cut off the names, and files without it are left out. The
// key opens sealed objects and may be nil.
func Open(dir, prefix string, key ObjectKey) (*Source, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	if prefix = strings.Trim(prefix, "/"); prefix != "" {
		prefix += "/"
	}
	return &Source{root: root, prefix: prefix, key: key}, nil
}

// Close closes the directory.
func (s *Source) Close() error { return s.root.Close() }

// Scan lists the directory. It opens no file.
func (s *Source) Scan() (*Plan, error) {
	p := newPlanner(s.prefix)
	err := fs.WalkDir(s.root.FS(), ".", func(name string, d fs.DirEntry, err error) error {
		switch {
		case err != nil && name == ".":
			return err
		case err != nil:
			p.add(name, func() string { return "it cannot be read (" + reasonOf(err) + ")" })
			if d != nil && d.IsDir() {
				return fs.SkipDir
			}
		case !d.IsDir():
			p.add(name, func() string { return s.examine(name, d) })
		}
		return nil
	})
	return p.finish(), err
}

// examine returns why an entry of a directory is not a file that can be read, or "".
func (s *Source) examine(name string, d fs.DirEntry) string {
	link := d.Type()&fs.ModeSymlink != 0
	if !link && !d.Type().IsRegular() {
		return "it is not a regular file"
	}
	if !link {
		return ""
	}
	switch info, err := s.root.Stat(name); {
	case err != nil:
		return "it is a symbolic link that leads out of the directory, or nowhere"
	case info.IsDir():
		return "it is a symbolic link to a directory, and those are not followed"
	case !info.Mode().IsRegular():
		return "it is a symbolic link to something that is not a regular file"
	}
	return ""
}

// Read returns the records of a group. An error says why the group is refused.
func (s *Source) Read(g *Group) ([]remote.Record, error) {
	if g.fault != "" {
		return nil, errors.New(g.fault)
	}
	var all []remote.Record
	for _, f := range g.files {
		value, err := s.readFile(f.path)
		if err != nil {
			return nil, errors.New(g.faultOf(f.key, err.Error()))
		}
		all = append(all, remote.Record{Key: f.key, Value: value})
	}
	return all, nil
}

func (s *Source) readFile(name string) ([]byte, error) {
	limit := int64(flotilla.MaxValue)
	if s.key != nil {
		limit += objectOverhead
	}
	f, err := s.root.Open(name)
	if err != nil {
		return nil, fmt.Errorf("it cannot be read (%s)", reasonOf(err))
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, fmt.Errorf("it cannot be read (%s)", reasonOf(err))
	}
	if int64(len(b)) > limit {
		return nil, fmt.Errorf("it has more than %d bytes, the limit of a record", flotilla.MaxValue)
	}
	return openObject(s.key, b)
}

// reasonOf returns an error of the file system without the path, which the report names.
func reasonOf(err error) string {
	if e, ok := err.(*fs.PathError); ok {
		err = e.Err
	}
	return err.Error()
}
