package main

import (
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"

	"golang.org/x/crypto/nacl/secretbox"

	"github.com/flotilla-ha/flotilla"
	"github.com/flotilla-ha/flotilla/internal/remote"
)

// source is a directory of records. Nothing outside of it is read, wherever symbolic links lead.
type source struct {
	root   *os.Root
	prefix string    // of the keys that are asked for, which is taken off; ends with a slash or is empty
	key    objectKey // of sealed objects
}

// group is what is brought over together: a certificate, an account, or one record.
type group struct {
	kind  kind
	name  string
	files []file
	fault string // why it is refused without reading it
}

// file is one record of a group.
type file struct{ path, key string }

// contents is what a source holds.
type contents struct {
	groups []*group
	left   map[kind]int
	hint   string // a prefix that all certificates seem to have; empty: none
}

// scan looks through the directory without opening a file.
func (s *source) scan() (*contents, error) {
	c := &contents{left: make(map[kind]int)}
	byName, hint := make(map[string]*group), ""
	add := func(name string, d fs.DirEntry, fault string) {
		key, ok := strings.CutPrefix(name, s.prefix)
		if !ok {
			c.left[kindOutside]++
			return
		}
		k, groupName := kindOf(key)
		if k.leftOut() {
			c.left[k]++
			return
		}
		if d != nil && fault == "" {
			fault = s.judge(name, d)
		}
		if len(key) > flotilla.MaxName {
			fault = fmt.Sprintf("the name has %d bytes, the limit is %d", len(key), flotilla.MaxName)
		}
		if p, ok := prefixBefore(key); ok && hint == "" {
			hint = s.prefix + p
		}
		g := byName[groupName]
		if g == nil {
			g = &group{kind: k, name: groupName}
			byName[groupName] = g
			c.groups = append(c.groups, g)
		}
		g.files = append(g.files, file{path: name, key: key})
		if fault != "" && g.fault == "" {
			g.fault = faultOf(g, key, fault)
		}
	}
	err := fs.WalkDir(s.root.FS(), ".", func(name string, d fs.DirEntry, err error) error {
		switch {
		case err != nil && name == ".":
			return err
		case err != nil:
			add(name, nil, "it cannot be read ("+reasonOf(err)+")")
			if d != nil && d.IsDir() {
				return fs.SkipDir
			}
		case !d.IsDir():
			add(name, d, "")
		}
		return nil
	})
	if !slices.ContainsFunc(c.groups, func(g *group) bool { return g.kind == kindCertificate }) {
		c.hint = hint
	}
	return c, err
}

// judge says why a directory's entry is not a file that can be read, or "".
func (s *source) judge(name string, d fs.DirEntry) string {
	link := d.Type()&fs.ModeSymlink != 0
	if !link && !d.Type().IsRegular() {
		return "it is no regular file"
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
		return "it is a symbolic link to what is no regular file"
	}
	return ""
}

// read returns the records of a group. An error says why they are refused.
func (s *source) read(g *group) ([]remote.Record, error) {
	if g.fault != "" {
		return nil, fmt.Errorf("%s", g.fault)
	}
	var records []remote.Record
	for _, f := range g.files {
		value, err := s.readFile(f.path)
		if err != nil {
			return nil, fmt.Errorf("%s", faultOf(g, f.key, err.Error()))
		}
		records = append(records, remote.Record{Key: f.key, Value: value})
	}
	return records, nil
}

func (s *source) readFile(name string) ([]byte, error) {
	limit := int64(flotilla.MaxValue)
	if s.key != nil {
		limit += objectNonce + secretbox.Overhead
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

// faultOf names the file of a group that a fault is about, if the group's name does not.
func faultOf(g *group, key, fault string) string {
	if g.name == key {
		return fault
	}
	return path.Base(key) + ": " + fault
}

// reasonOf is an error of the file system without the path, which the report names.
func reasonOf(err error) string {
	if e, ok := err.(*fs.PathError); ok {
		err = e.Err
	}
	return err.Error()
}
