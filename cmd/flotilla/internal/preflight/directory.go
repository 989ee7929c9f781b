package preflight

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/flotilla-ha/flotilla"
	"github.com/flotilla-ha/flotilla/internal/durable"
	"github.com/flotilla-ha/flotilla/internal/durable/diskfile"
	"github.com/flotilla-ha/flotilla/internal/plaintext"
)

const (
	syncs     = 9                     // that are measured
	slowSync  = 10 * time.Millisecond // a write of the cluster takes longer than this
	syncSize  = 4 << 10
	probeSize = 256 << 10 // what a node needs to start

	// What a directory takes at most, from "Sizing" in docs/operations.md: four times the state, that
	// of programs and that of certificates, and this.
	spaceTimes = 4
	spaceMore  = 128 << 20
)

// secret looks at the file of the secrets.
func (c *checker) secret(context.Context) {
	c.token()
	if c.dev {
		return
	}
	var ids []string
	for _, s := range c.cfg.Secrets {
		ids = append(ids, strings.TrimSuffix(strings.TrimPrefix(s.String(), "secret("), ")"))
	}
	text := "its fingerprint is " + strings.Join(ids, ", or ")
	if file := c.o.Getenv("FLOTILLA_SECRETS_FILE"); file != "" {
		fi, err := os.Stat(file)
		if err == nil && fi.Mode().IsRegular() && exposed(fi) {
			c.warn("secret", "chmod 600 "+file, "users other than the owner may read %s; %s", file, text)
			return
		}
	}
	c.ok("secret", "%s", text)
}

// token looks at the file of the health port's token.
func (c *checker) token() {
	file := c.o.Getenv("FLOTILLA_HEALTH_TOKEN_FILE")
	if file == "" {
		return
	}
	if fi, err := os.Stat(file); err == nil && fi.Mode().IsRegular() && exposed(fi) {
		c.warn("health token", "chmod 600 "+file, "users other than the owner may read %s", file)
	}
}

// directory looks at the data directory, and at the disk that it is on.
func (c *checker) directory(context.Context) {
	dir := c.cfg.Dir
	if dir == "" {
		if !c.dev {
			c.warn("directory", "set FLOTILLA_DIR, unless that is meant",
				"FLOTILLA_DIR is not set: the node keeps everything in memory, and each start makes a new node")
		}
		return
	}
	fi, err := os.Stat(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		c.missing(dir)
		return
	case err != nil:
		c.fail("directory", "give this user the right to enter it", "%v", err)
		return
	case !fi.IsDir():
		c.fail("directory", "give FLOTILLA_DIR a directory", "%s is no directory", dir)
		return
	}
	c.contents(dir)
	if text := foreign(fi); text != "" {
		c.warn("owner", "run the check as the user of the program; else give it the directory: chown -R USER "+dir, "%s", text)
	} else if exposed(fi) {
		c.warn("owner", "chmod 700 "+dir, "group or others have rights to %s; a node takes them from its own files", dir)
	} else {
		c.ok("owner", "%s belongs to this user alone", dir)
	}
	c.disk(dir)
}

// missing looks at where a directory would be made.
func (c *checker) missing(dir string) {
	above := nearest(dir)
	if err := tryWrite(above); err != nil {
		c.fail("directory", "make it for the user of the program: install -d -m 700 -o USER "+dir,
			"%s is not there and cannot be made: %v", dir, cause(err))
		return
	}
	c.ok("directory", "%s is not there; the node makes it", dir)
	c.disk(above)
}

// nearest returns the directory above one that is missing, in which it would be made.
func nearest(dir string) string {
	for dir = filepath.Clean(dir); dir != filepath.Dir(dir); {
		dir = filepath.Dir(dir)
		if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
			break
		}
	}
	return dir
}

// backups looks at the directory for backups, if there is one. One that is there can be written to,
// since the configuration was accepted.
func (c *checker) backups(dir string) {
	if _, err := os.Stat(dir); err == nil {
		c.ok("backups", "this user may write to %s", dir)
		return
	}
	if err := tryWrite(nearest(dir)); err != nil {
		c.fail("backups", "make it for the user of the program: install -d -m 700 -o USER "+dir,
			"%s is not there and cannot be made: %v", dir, cause(err))
		return
	}
	c.ok("backups", "%s is not there; the node makes it", dir)
}

// contents looks at what the directory holds.
func (c *checker) contents(dir string) {
	view, err := durable.Look(dir)
	if err != nil {
		c.fail("directory", "run the check as the user of the program, and see who owns the directory", "it cannot be read: %v", err)
		return
	}
	c.inUse = view.InUse
	if err := view.Close(); err != nil {
		c.fail("directory", "look at the disk", "it cannot be closed: %v", err)
		return
	}
	if _, err := os.Lstat(filepath.Join(dir, durable.IdentityFile)); errors.Is(err, fs.ErrNotExist) && !c.inUse {
		c.withoutIdentity(dir)
		return
	}
	in, err := flotilla.Inspect(dir, c.cfg.Secrets...)
	c.id, c.cluster = in.ID, in.Cluster
	switch {
	case in.Left:
		c.cluster = ""
		c.ok("directory", "%s is that of a node that has left its cluster; it starts as a new one", dir)
	case in.ID != "" && !opens(c.cfg.Secrets, in.Secret):
		c.fail("directory", "give the secret with that fingerprint, or another directory",
			"%s is sealed with the secret %s, and none of the given ones is that", dir, in.Secret)
	case err != nil && in.InUse:
		c.warn("directory", "check again in a moment", "a process has %s in use, and it could not be read: %s", dir, plain(err))
	case err != nil:
		c.fail("directory", "see \"The disk\" in docs/operations.md", "%s", plain(err))
	case in.InUse:
		c.ok("directory", "%s is in use: the node %s (%s) runs", dir, plaintext.Safe(in.Name), plaintext.ShortID(in.ID))
	case in.Cluster == "":
		c.ok("directory", "%s is that of the node %s, which is in no cluster yet", dir, plaintext.ShortID(in.ID))
	default:
		c.ok("directory", "%s is that of the node %s (%s) of the cluster %s, and opens with the secret",
			dir, plaintext.Safe(in.Name), plaintext.ShortID(in.ID), plaintext.ShortID(in.Cluster))
	}
}

// withoutIdentity looks at a directory that is no node's.
func (c *checker) withoutIdentity(dir string) {
	entries, err := os.ReadDir(dir)
	if err == nil {
		err = tryWrite(dir)
	}
	if err != nil {
		c.fail("directory", "change its owner or its mode, or check as the user of the program", "this user may not use %s: %v", dir, cause(err))
		return
	}
	if i := slices.IndexFunc(entries, func(e fs.DirEntry) bool { return e.Name() == "raft.db" }); i >= 0 {
		c.fail("directory", "restore the file, or empty the directory to join as a new node",
			"%s has a raft log but no file %q", dir, durable.IdentityFile)
		return
	}
	c.ok("directory", "%s has no node yet; a new one starts", dir)
}

// opens reports whether one of the secrets has an ID.
func opens(secrets []flotilla.Secret, id string) bool {
	return slices.ContainsFunc(secrets, func(s flotilla.Secret) bool { return s.String() == "secret("+id+")" })
}

// disk looks at the room in a directory, and measures how fast what is written there is safe.
func (c *checker) disk(dir string) {
	most := spaceTimes*(2*c.cfg.MaxState+c.cfg.MaxRecords) + spaceMore
	switch free, err := diskfile.Free(dir); {
	case errors.Is(err, errors.ErrUnsupported):
		c.warn("space", "see that "+plaintext.Size(most)+" are free", "this system does not say how much is free")
	case err != nil:
		c.warn("space", "look at the disk", "it is not known how much is free: %v", err)
	case free < most:
		c.warn("space", "make room, or lower FLOTILLA_MAX_STATE and FLOTILLA_MAX_RECORDS on all nodes", "%s are free, and the directory may grow to %s: four times the state, and 128 MiB",
			plaintext.Size(free), plaintext.Size(most))
	default:
		c.ok("space", "%s are free; the directory takes at most %s", plaintext.Size(free), plaintext.Size(most))
	}
	median, slowest, err := c.measure(dir)
	switch {
	case err != nil:
		c.fail("disk", "make room, or change the owner or the mode of the directory", "256 KiB cannot be written and synced: %v", cause(err))
	case median > slowSync:
		c.warn("disk", "use a disk that is faster to sync, such as a local SSD", "a sync takes %v (median of %d; slowest %v), and each write of the cluster waits for one on two nodes",
			round(median), syncs, round(slowest))
	default:
		c.ok("disk", "a sync takes %v (median of %d; slowest %v)", round(median), syncs, round(slowest))
	}
}

func round(d time.Duration) time.Duration { return d.Round(10 * time.Microsecond) }

// measureSync measures how long it takes until what is written to a file in dir is on the disk.
func measureSync(dir string) (median, slowest time.Duration, err error) {
	f, err := os.CreateTemp(dir, ".flotilla-check-*"+diskfile.TmpSuffix)
	if err != nil {
		return 0, 0, err
	}
	defer func() { err = errors.Join(err, f.Close(), os.Remove(f.Name())) }()
	// As the log is written: over room that the file has already.
	if _, err = f.Write(make([]byte, probeSize)); err == nil {
		err = f.Sync()
	}
	var took []time.Duration
	for i := 0; i < syncs && err == nil; i++ {
		begun := time.Now()
		if _, err = f.WriteAt(make([]byte, syncSize), int64(i*syncSize)); err == nil {
			err = f.Sync()
		}
		took = append(took, time.Since(begun))
	}
	if err != nil {
		return 0, 0, err
	}
	slices.Sort(took)
	return took[len(took)/2], took[len(took)-1], nil
}

// tryWrite returns why no file can be made in a directory.
func tryWrite(dir string) error {
	f, err := os.CreateTemp(dir, ".flotilla-check-*"+diskfile.TmpSuffix)
	if err != nil {
		return err
	}
	return errors.Join(f.Close(), os.Remove(f.Name()))
}

// cause returns an error without the name of the temporary file.
func cause(err error) error {
	if e := (*fs.PathError)(nil); errors.As(err, &e) {
		return e.Err
	}
	return err
}
