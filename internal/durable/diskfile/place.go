package diskfile

import (
	"errors"
	"io/fs"
	"os"
	"runtime"
	"slices"
	"sync"
)

// Places is what a directory knows of its files, which it keeps open. The zero Places is empty. Its
// methods may be called from several goroutines at once.
type Places struct {
	mu    sync.Mutex
	files map[string][]*os.File // by path; two while one is being replaced by the other
	snap  *Snapshot             // nil: there is no snapshot
}

// Snapshot is the files of the newest snapshot.
type Snapshot struct {
	Dir   string   // the directory of the snapshot
	Meta  *os.File // its description
	State *os.File // its content
}

// Keep records that f is at path, or will be in a moment. It owns f.
func (p *Places) Keep(path string, f *os.File) {
	if runtime.GOOS == "windows" { // which replaces no file that is open
		_ = f.Close()
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.files == nil {
		p.files = make(map[string][]*os.File)
	}
	p.files[path] = append(slices.Clone(p.files[path]), f)
}

// KeepOnly forgets every other file at path; all of them if f is nil.
func (p *Places) KeepOnly(path string, f *os.File) {
	p.mu.Lock()
	old := p.files[path]
	delete(p.files, path)
	if f != nil && slices.Contains(old, f) {
		p.files[path] = []*os.File{f}
	}
	p.mu.Unlock()
	for _, o := range old {
		if o != f {
			_ = o.Close()
		}
	}
}

// Drop forgets f, which did not come to path after all.
func (p *Places) Drop(path string, f *os.File) {
	p.mu.Lock()
	rest := slices.DeleteFunc(slices.Clone(p.files[path]), func(o *os.File) bool { return o == f })
	if p.files[path] = rest; len(rest) == 0 {
		delete(p.files, path)
	}
	p.mu.Unlock()
	_ = f.Close()
}

// At returns the files that path may lead to.
func (p *Places) At(path string) []*os.File {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.files[path]
}

// Paths returns the paths of all files, in order.
func (p *Places) Paths() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	var all []string
	for path := range p.files {
		all = append(all, path)
	}
	slices.Sort(all)
	return all
}

// Snapshot returns the newest snapshot, or nil.
func (p *Places) Snapshot() *Snapshot {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.snap
}

// SetSnapshot records which snapshot is the newest; nil: there is none. It owns the files.
func (p *Places) SetSnapshot(s *Snapshot) {
	p.mu.Lock()
	old := p.snap
	p.snap = s
	p.mu.Unlock()
	if old != nil {
		_, _ = old.Meta.Close(), old.State.Close()
	}
}

// Close closes all files.
func (p *Places) Close() {
	for _, path := range p.Paths() {
		p.KeepOnly(path, nil)
	}
	p.SetSnapshot(nil)
}

// InPlace is [Leads] for the files at path. This process may replace them meanwhile.
func (p *Places) InPlace(path string) error {
	files := p.At(path)
	if len(files) == 0 {
		return nil
	}
	err := Leads(path, files...)
	if err != nil && !slices.Equal(files, p.At(path)) {
		return nil
	}
	return err
}

// OpenKept opens a file for Keep. It opens it for writing if it can: a union file system then gives
// the file its place for good.
func OpenKept(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if errors.Is(err, fs.ErrPermission) {
		return os.Open(path)
	}
	return f, err
}

// Leads returns nil if path leads to one of files, else a [MovedError] or the system's error. A
// file that was closed counts as in place.
func Leads(path string, files ...*os.File) error {
	now, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return &MovedError{Path: path, Missing: true}
	}
	if err != nil {
		return err
	}
	for _, f := range files {
		if mine, err := f.Stat(); err != nil || os.SameFile(mine, now) {
			return nil
		}
	}
	return &MovedError{Path: path}
}
