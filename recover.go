package flotilla

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/flotilla-ha/flotilla/event"
	"github.com/flotilla-ha/flotilla/internal/backups"
	"github.com/flotilla-ha/flotilla/internal/durable"
	"github.com/flotilla-ha/flotilla/internal/errs"
	"github.com/flotilla-ha/flotilla/internal/membership"
	"github.com/flotilla-ha/flotilla/internal/replica"
	"github.com/flotilla-ha/flotilla/internal/seal"
	"github.com/flotilla-ha/flotilla/internal/state"
	"github.com/flotilla-ha/flotilla/internal/wire"
)

// recoveredBackup is the name of the backup that Recover makes of a directory, in what it sets
// aside.
const recoveredBackup = "recovered.backup"

// droppedTime is how long a node asks its cluster whether it has dropped the secret of a directory.
const droppedTime = 5 * time.Second

// Restore makes the data directory of a node from a backup. Start one node with it, and the others
// with empty directories: they join, and the cluster has what the backup has. dir must not be that
// of a node yet. It is created if it does not exist. An interrupted Restore is completed by another
// one; until then no node starts with the directory.
//
// The cluster keeps its ID and becomes another incarnation. A node of the former one that meets a
// node of this one gives up. Opened again, as Serve does by itself, it sets its state aside and
// joins as a new node. Two sides that never meet cannot notice each other, so stop what is left of
// the former cluster first.
//
// The directory is sealed with the secrets given here. One of them must open the backup. The nodes
// must be configured with the same secrets. So a backup that an older secret opens is restored with
// the new secret first and the older one behind it.
func Restore(dir string, backup io.Reader, secrets ...Secret) (BackupInfo, error) {
	info, err := restore(dir, backup, secrets)
	return info, edgeUnlessConfig("restoring into "+dir, err)
}

func restore(path string, backup io.Reader, secrets []Secret) (BackupInfo, error) {
	if path == "" {
		return BackupInfo{}, &ConfigError{Field: "Dir", Reason: "no directory is given to restore into"}
	}
	s, info, err := readBackup(backup, secrets)
	if err != nil {
		return info, err
	}
	dir, err := replica.LockDir(path)
	if err != nil {
		return info, err
	}
	secrets = undropped(secrets, s)
	ident, err := membership.BeginRestore(dir, rawSecrets(secrets), s.Cluster, membership.NextIncarnation(s.Incarnation))
	if err == nil {
		err = plant(dir, ident, s, secrets)
	}
	return info, errors.Join(err, dir.Close())
}

// Recover lets one survivor go on when the majority of the voters is lost for good. It makes the
// survivor's directory that of a node which has what the survivor had, and is the only one of
// another incarnation of the cluster: see [Restore]. The others join with empty directories, or
// with their old ones, which they set aside. No process may use the directory. What was in it
// before is set aside in it, in the directory whose name Recover returns.
//
// Entries of the log on which the cluster may not have agreed, the Tail of [Inspect], are kept or
// dropped. A kept write that had failed may then have taken effect. A dropped write that was
// acknowledged is lost.
//
// One of the secrets must be that of the directory. The new one is sealed with all of them. An
// interrupted Recover is completed by another one; until then no node starts with the directory.
func Recover(dir string, keepTail bool, secrets ...Secret) (aside string, err error) {
	aside, err = recoverDir(dir, keepTail, secrets)
	return aside, edgeUnlessConfig("recovering "+dir, err)
}

// edgeUnlessConfig is errs.Edge, but for a *ConfigError, which says enough.
func edgeUnlessConfig(doing string, err error) error {
	if config := (*ConfigError)(nil); errors.As(err, &config) {
		return err
	}
	return errs.Edge(doing, err)
}

func recoverDir(path string, keepTail bool, secrets []Secret) (aside string, err error) {
	if len(secrets) == 0 {
		return "", errors.New("no secret is given")
	}
	v, err := durable.Look(path)
	if err != nil {
		return "", err
	}
	var in Inspection
	agreed, s, err := in.read(v, rawSecrets(secrets), func(string, int64, int64) {})
	id, unread := readIdentity(v)
	if closed := v.Close(); closed != nil {
		return "", closed
	}
	switch {
	case v.InUse:
		return "", &ConfigError{Field: "Dir", Reason: path + " is in use by a node; stop it first"}
	case in.Interrupted && id.Kept == "":
		return "", errors.New("a restore into it was interrupted, and not a recovery; run that again (flotilla restore)")
	case in.Interrupted:
		return id.Kept, finishRecovery(path, id.Kept, nil, secrets)
	case err != nil || unread != nil:
		return "", errors.Join(err, unread)
	case !id.Member || id.Left || id.Aside != "":
		return "", errors.New("its node is no member of a cluster, so there is nothing to recover")
	}
	if !keepTail {
		s = agreed
	}
	if s.Keys == nil {
		return "", errors.New("its cluster had agreed on nothing yet, so there is nothing to recover")
	}
	aside = durable.AsideName(time.Now())
	dir, err := backups.OpenDir(filepath.Join(path, aside))
	if err != nil {
		return "", err
	}
	err = dir.Save(context.Background(), recoveredBackup, func(w io.Writer) error {
		return state.WriteBackup(w, s, state.BackupHead{Time: time.Now().UnixNano(), Node: id.Name})
	})
	if err != nil {
		return "", err
	}
	return aside, finishRecovery(path, aside, &id, secrets)
}

// readIdentity reads the identity in a directory.
func readIdentity(r interface{ ReadFile(string) ([]byte, error) }) (id membership.Identity, err error) {
	b, err := r.ReadFile(durable.IdentityFile)
	if err == nil {
		err = json.Unmarshal(b, &id)
	}
	return id, err
}

// finishRecovery sets everything aside, and makes the directory anew of the backup there. read is
// the identity to which the backup belongs, nil for a recovery that was interrupted.
func finishRecovery(path, aside string, read *membership.Identity, secrets []Secret) error {
	sealed, err := os.ReadFile(filepath.Join(path, aside, recoveredBackup))
	if err != nil {
		return err
	}
	s, _, err := readBackup(bytes.NewReader(sealed), secrets)
	if err != nil {
		return err
	}
	dir, err := replica.LockDir(path)
	if err != nil {
		return err
	}
	return errors.Join(replant(dir, aside, read, s, secrets), dir.Close())
}

// replant sets aside what a locked directory holds, and plants s there.
func replant(dir *durable.Dir, aside string, read *membership.Identity, s *state.State, secrets []Secret) error {
	now, err := readIdentity(dir)
	if err != nil {
		return err
	}
	if read != nil && !slices.Equal(read.Processes, now.Processes) {
		return errors.New("a node has run with it meanwhile; see that none is started, and run this again")
	}
	secrets = undropped(secrets, s)
	ident, err := membership.BeginRecovery(dir, aside, rawSecrets(secrets), s.Cluster, membership.NextIncarnation(s.Incarnation))
	if err != nil {
		return err
	}
	return plant(dir, ident, s, secrets)
}

// undropped returns the secrets without those that the cluster has dropped: nobody may use them
// again. One that has opened what there is is never among these.
func undropped(secrets []Secret, s *state.State) []Secret {
	return slices.DeleteFunc(slices.Clone(secrets), func(one Secret) bool {
		return slices.Contains(s.Seals.Dropped, one.raw.ID())
	})
}

// plant makes a directory that of a node with the state s, in the incarnation of its identity.
func plant(dir *durable.Dir, ident *membership.IdentityFile, s *state.State, secrets []Secret) error {
	wrapped, err := s.Keys.Wrap(rawSecrets(secrets)...)
	if err != nil {
		return err
	}
	id := ident.Identity()
	// The cluster may have been restored before. A clock in microseconds goes on faster than indexes.
	floor := uint64(time.Now().UnixMicro())
	if err := replica.Plant(dir, s.Restored(id.ID, id.Incarnation, wrapped, floor), slog.New(slog.DiscardHandler)); err != nil {
		return fmt.Errorf("making the directory: %w", err)
	}
	return membership.EndRestore(ident)
}

// loadIdentity loads the identity in a directory. A directory that opens only with a secret that
// the cluster has dropped meanwhile is set aside.
func loadIdentity(
	ctx context.Context, dir *durable.Dir, cfg *Config, accepted []seal.Secret, log *slog.Logger,
) (id *membership.Identity, written bool, err error) {
	id, written, err = membership.LoadIdentity(dir, accepted)
	if err == nil || id == nil {
		return id, written, err
	}
	ctx, cancel := context.WithTimeout(ctx, droppedTime)
	defer cancel()
	var addrs []string
	for _, m := range id.Peers {
		addrs = append(addrs, m.Addr)
	}
	if cfg.Peers != nil {
		found, _ := cfg.Peers(ctx) // without them there are those of before
		addrs = append(addrs, found...)
	}
	port, portErr := wire.OpenClient(wire.Config{Secrets: accepted, Dial: cfg.PeerDial, Logger: log})
	if portErr != nil {
		return nil, false, errors.Join(err, portErr)
	}
	defer port.Close()
	if !membership.AskDropped(ctx, port, id, addrs) {
		return nil, false, err
	}
	log.Warn("the cluster has replaced its secret while this node was away, and removed it; its state is set aside, and it joins as a new node",
		"dir", dir.Path(), "opens with", id.Key, "event", event.NodeReset)
	if err := membership.SetAsideNext(dir, id); err != nil {
		return nil, false, &ConfigError{Field: "Dir", Reason: "the node's identity cannot be written", Err: err}
	}
	return membership.LoadIdentity(dir, accepted)
}

// closeDir closes a directory, if there is one.
func closeDir(dir *durable.Dir) error {
	if dir == nil {
		return nil
	}
	return dir.Close()
}
