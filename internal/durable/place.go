package durable

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
)

// MovedError says that a path does not lead to what this process has open there. Somebody has deleted, renamed or replaced a
// file, or the whole directory, under the running process. What the process writes from then on is lost when it ends.
type MovedError struct {
	Path    string // that was looked at
	Missing bool   // nothing is at the path; otherwise something else is
	Dir     bool   // it is the data directory itself
}

// Error names the path, and what has become of it.
func (e *MovedError) Error() string {
	if e.Missing {
		return e.Path + " was deleted or moved away while this process uses it"
	}
	return e.Path + " was replaced while this process uses it"
}

// places is what a Dir knows of its files: they are kept open, so that it is seen when a path leads elsewhere, and so that a
// file which was deleted can be written anew from what it held.
type places struct {
	mu    sync.Mutex
	files map[string][]*os.File // by path. Two while one is being replaced by the other.
	snap  *snapshotFiles        // nil: there is no snapshot
}

// snapshotFiles are those of the newest snapshot.
type snapshotFiles struct {
	dir         string
	meta, state *os.File
}

// keep notes that f is at path, or will be in a moment. It owns f.
func (p *places) keep(path string, f *os.File) {
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

// only forgets what else was at path; all of it if f is nil.
func (p *places) only(path string, f *os.File) {
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

// drop forgets f, which did not come to path after all.
func (p *places) drop(path string, f *os.File) {
	p.mu.Lock()
	rest := slices.DeleteFunc(slices.Clone(p.files[path]), func(o *os.File) bool { return o == f })
	if p.files[path] = rest; len(rest) == 0 {
		delete(p.files, path)
	}
	p.mu.Unlock()
	_ = f.Close()
}

// at returns the files that path may lead to.
func (p *places) at(path string) []*os.File {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.files[path]
}

func (p *places) paths() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	var all []string
	for path := range p.files {
		all = append(all, path)
	}
	slices.Sort(all)
	return all
}

func (p *places) snapshot() *snapshotFiles {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.snap
}

// setSnapshot notes which snapshot is the newest.
func (p *places) setSnapshot(s *snapshotFiles) {
	p.mu.Lock()
	old := p.snap
	p.snap = s
	p.mu.Unlock()
	if old != nil {
		_, _ = old.meta.Close(), old.state.Close()
	}
}

func (p *places) close() {
	for _, path := range p.paths() {
		p.only(path, nil)
	}
	p.setSnapshot(nil)
}

// openKept opens a file to be kept. It opens it for writing if it can: a union file system gives a file its place for good then.
func openKept(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if errors.Is(err, fs.ErrPermission) {
		return os.Open(path)
	}
	return f, err
}

// leads reports why path does not lead to one of files; nil if it does. A file that is looked at no more counts as there.
func leads(path string, files ...*os.File) error {
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

// inPlace is leads for a file of the directory. It may be replaced by this process meanwhile.
func (d *Dir) inPlace(path string) error {
	files := d.places.at(path)
	if len(files) == 0 {
		return nil
	}
	err := leads(path, files...)
	if err != nil && !slices.Equal(files, d.places.at(path)) {
		return nil
	}
	return err
}

// here reports why the directory's path does not lead to the directory.
func (d *Dir) here() error {
	err := leads(d.path, d.self)
	if moved, ok := errors.AsType[*MovedError](err); ok {
		moved.Dir = true
	}
	return err
}

// Check looks whether the directory and its files are where this process has put them, and may be written. It costs a few system
// calls and writes nothing. The error is a [MovedError], or the system's.
func (d *Dir) Check() error {
	if err := d.here(); err != nil {
		return err
	}
	for _, path := range d.places.paths() {
		if err := d.inPlace(path); err != nil {
			return err
		}
	}
	if s := d.places.snapshot(); s != nil {
		for name, f := range map[string]*os.File{metaName: s.meta, stateName: s.state} {
			if err := leads(filepath.Join(s.dir, name), f); err != nil && s == d.places.snapshot() {
				return err
			}
		}
	}
	return writable(d.path)
}

// Relock makes sure that the lock file is the one that this process has locked, and locks another one if that was deleted or
// replaced. It reports whether it had to. The error is an [InUseError] if another process was faster: it has the directory now.
func (d *Dir) Relock() (again bool, err error) {
	if err := d.here(); err != nil {
		return false, err
	}
	err = leads(filepath.Join(d.path, lockName), d.lock)
	if err == nil {
		return false, nil
	}
	if _, moved := errors.AsType[*MovedError](err); !moved {
		return false, err
	}
	f, _, err := openLock(d.path)
	if err != nil {
		return false, err
	}
	_ = d.lock.Close()
	d.lock = f
	return true, nil
}

// Restore writes what was deleted under this process anew, from the files that it has kept open. All that it ever wrote is in
// them, so nothing is lost, as long as nothing else is written meanwhile: logs and snapshot stores must be closed. What is there is not touched: the
// error is a [MovedError] if something is in the place of a file, or if the directory was not deleted but moved.
func (d *Dir) Restore() error {
	if err := d.here(); err != nil {
		moved, ok := errors.AsType[*MovedError](err)
		if !ok || !moved.Missing || !deleted(d.self) {
			return err
		}
		if err := d.recreate(); err != nil {
			return fmt.Errorf("create data directory again: %w", err)
		}
	}
	if _, err := d.Relock(); err != nil {
		return err
	}
	if s := d.places.snapshot(); s != nil {
		if err := d.restoreSnapshot(s); err != nil {
			return fmt.Errorf("restore snapshot: %w", err)
		}
	}
	for _, path := range d.places.paths() {
		if err := d.restoreFile(path); err != nil {
			return fmt.Errorf("restore %s: %w", path, err)
		}
	}
	return nil
}

// recreate makes the directory again. Its lock follows.
func (d *Dir) recreate() error {
	if _, err := makeDirs(d.path); err != nil {
		return err
	}
	self, err := os.Open(d.path)
	if err != nil {
		return err
	}
	_ = d.self.Close()
	d.self = self
	return nil
}

// restoreFile writes a file anew if it is missing, or if bbolt has it locked for ever.
func (d *Dir) restoreFile(path string) error {
	isLog := filepath.Base(path) == logName
	err := d.inPlace(path)
	moved, ok := errors.AsType[*MovedError](err)
	switch {
	case err == nil && !(isLog && d.stuck):
		return nil
	case err != nil && (!ok || !moved.Missing):
		return err
	}
	files := d.places.at(path)
	if len(files) == 0 {
		return nil
	}
	from := files[0]
	tmp := path + tmpSuffix
	f, err := copySynced(tmp, from)
	if err != nil {
		return err
	}
	if isLog {
		c, err := inspect(tmp)
		if err == nil {
			err = d.mark.check(c)
		}
		if err != nil {
			_, _ = f.Close(), os.Remove(tmp)
			return d.named(path, err)
		}
	}
	d.places.keep(path, f)
	if err := os.Rename(tmp, path); err != nil {
		_ = os.Remove(tmp)
		d.places.drop(path, f)
		return err
	}
	d.places.only(path, f)
	if isLog {
		d.stuck = false
	}
	return syncDir(d.path)
}

// restoreSnapshot writes the newest snapshot anew if it is missing.
func (d *Dir) restoreSnapshot(s *snapshotFiles) error {
	whole := true
	for name, f := range map[string]*os.File{metaName: s.meta, stateName: s.state} {
		err := leads(filepath.Join(s.dir, name), f)
		if moved, ok := errors.AsType[*MovedError](err); err != nil && (!ok || !moved.Missing) {
			return err
		}
		whole = whole && err == nil
	}
	if whole {
		return nil
	}
	tmp := s.dir + tmpSuffix
	if err := os.RemoveAll(tmp); err != nil {
		return err
	}
	if err := os.MkdirAll(tmp, 0o700); err != nil {
		return err
	}
	var err error
	again := &snapshotFiles{dir: s.dir}
	if again.meta, err = copySynced(filepath.Join(tmp, metaName), s.meta); err != nil {
		return err
	}
	if again.state, err = copySynced(filepath.Join(tmp, stateName), s.state); err != nil {
		_ = again.meta.Close()
		return err
	}
	// What is left of it is in the same files, which are open, so a crash in between loses no more than is lost already.
	err = errors.Join(syncDir(tmp), os.RemoveAll(s.dir), os.Rename(tmp, s.dir), syncDir(filepath.Dir(s.dir)), syncDir(d.path))
	if err != nil {
		_, _ = again.meta.Close(), again.state.Close()
		return err
	}
	d.places.setSnapshot(again)
	return nil
}

// copySynced writes what from holds into a new file, and returns that.
func copySynced(path string, from *os.File) (*os.File, error) {
	fi, err := from.Stat()
	if err != nil {
		return nil, err
	}
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return nil, err
	}
	n, err := io.Copy(f, io.NewSectionReader(from, 0, fi.Size()))
	if err == nil && n != fi.Size() {
		err = io.ErrUnexpectedEOF
	}
	if err == nil {
		err = f.Sync()
	}
	if err != nil {
		_, _ = f.Close(), os.Remove(path)
		return nil, err
	}
	return f, nil
}

// mark is the newest state of a log that this process knows to be on disk. A file that holds less is not what it wrote.
type mark struct {
	txid uint64 // 0: nothing is known
	span span
	vote voteRecord
}

// check reports whether a log file holds at least what the mark says. A transaction that failed may be there all the same.
func (m mark) check(c *contents) error {
	switch {
	case c.txid < m.txid:
		return damaged("its newest transaction is %d, and this process has written %d", c.txid, m.txid)
	case c.txid == m.txid && c.span != m.span && !c.open:
		return damaged("it ends with entry %d, and this process has written entry %d", c.span.last, m.span.last)
	case c.vote.term < m.vote.term:
		return damaged("its term is %d, and this process has written %d", c.vote.term, m.vote.term)
	}
	return nil
}
