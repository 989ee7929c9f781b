package flotilla

import (
	"context"
	"encoding/json"
	"io"
	"time"

	"github.com/flotilla-ha/flotilla/internal/backups"
	"github.com/flotilla-ha/flotilla/internal/diagnosis"
	"github.com/flotilla-ha/flotilla/internal/guard"
	"github.com/flotilla-ha/flotilla/internal/keyspace"
	"github.com/flotilla-ha/flotilla/internal/notify"
	"github.com/flotilla-ha/flotilla/internal/rotation"
	"github.com/flotilla-ha/flotilla/internal/state"
	"github.com/flotilla-ha/flotilla/internal/upgrade"
	"github.com/flotilla-ha/flotilla/status"
)

const (
	backupEvery = 24 * time.Hour // the default of Backups.Every
	backupKeep  = 14             // the default of Backups.Keep

	// backupRecord is where the cluster keeps what it knows of the last automatic backup.
	backupRecord = "flotilla/backup.json"
)

// Backups says how a cluster is backed up. One node makes each backup: one that holds its lease and
// has Backups. Give all nodes the same, and a place that outlives any of them. A backup counts when
// it was read back and restored into memory. Status and the flotilla command show the last one that
// counts.
type Backups struct {
	// Dir is a directory for the backups. It is made if it does not exist. Empty: there is none.
	Dir string

	// Store keeps the backups instead of Dir. Nil: Dir does.
	Store BackupStore

	// Every is how old the newest backup may become. Another one is made within ten seconds after a
	// certificate has changed. 0: 24 hours. The minimum is a minute.
	Every time.Duration

	// Keep is for how many periods of Every a backup is kept. Of each period that is the newest one.
	// 0: 14.
	Keep int
}

// BackupStore keeps backups under names. Its methods are called one at a time:
//
//	Save(ctx, name, write)  // stores what write writes: all of it or nothing
//	Load(ctx, name)         // opens it again; fs.ErrNotExist
//	List(ctx)               // returns all names
//	Remove(ctx, name)       // removes one; it may be gone already
type BackupStore = backups.Store

// upkeep watches over what the cluster stores.
type upkeep struct {
	space        *spaceWatch
	certificates notify.Signal   // a certificate has changed
	backups      *backups.Keeper // nil: this node makes no backups
	seals        *rotation.Keeper
	rotation     *rotation.Driver
	version      *upgrade.Raiser
	guard        *guard.Share      // sends the death notice of this process; nil: nothing does
	journal      diagnosis.Journal // the newest part of the node's log
	waiting      *waiting
}

func (b Backups) on() bool { return b.Dir != "" || b.Store != nil }

// check completes b, or says what is wrong with it.
func (b *Backups) check() error {
	switch {
	case b.Dir != "" && b.Store != nil:
		return &ConfigError{Field: "Backups.Store", Reason: "is set, and so is Backups.Dir; set one of the two"}
	case b.Every < 0 || b.Every > 0 && b.Every < time.Minute:
		return &ConfigError{Field: "Backups.Every", Reason: "must be a minute or more, or 0 for a day"}
	case b.Keep < 0:
		return &ConfigError{Field: "Backups.Keep", Reason: "must be above 0, or 0 for 14"}
	case !b.on() && (b.Every != 0 || b.Keep != 0):
		return &ConfigError{Field: "Backups.Dir", Reason: "is missing: there is no place for the backups"}
	}
	if !b.on() {
		return nil
	}
	if err := checkDir("Backups.Dir", b.Dir); err != nil {
		return err
	}
	if err := backups.CheckDir(b.Dir); b.Dir != "" && err != nil {
		return unwritable(err)
	}
	if b.Every == 0 {
		b.Every = backupEvery
	}
	if b.Keep == 0 {
		b.Keep = backupKeep
	}
	return nil
}

func unwritable(err error) error {
	return &ConfigError{Field: "Backups.Dir", Reason: "backups cannot be written there", Err: err}
}

// newKeeper returns what makes backups on a node, nil if it is to make none.
func newKeeper(n *Node) (*backups.Keeper, error) {
	b := n.cfg.Backups
	if !b.on() {
		return nil, nil
	}
	if b.Store == nil {
		dir, err := backups.OpenDir(b.Dir)
		if err != nil {
			return nil, unwritable(err)
		}
		b.Store = dir
	}
	return backups.New(backups.Config{
		Store: b.Store, Every: b.Every, Keep: b.Keep,
		Make: func(ctx context.Context, w io.Writer) (backups.Made, error) {
			info, err := n.Backup(ctx, w)
			return madeOf(info), err
		},
		Verify: func(r io.Reader) (backups.Made, error) {
			info, err := VerifyBackup(r, secretsOf(n.fsm.secrets.All())...)
			return madeOf(info), err
		},
		Record: func(ctx context.Context, v backups.Verified) error {
			value, err := json.Marshal(backupRecordOf{v, b.Every})
			if err != nil {
				return err
			}
			return n.storage.Store(ctx, backupRecord, value)
		},
		Last:    func() (backups.Verified, bool) { return lastBackup(n.store.State()) },
		Changed: func() uint64 { return certificatesChanged(n.store.State()) },
		Changes: &n.upkeep.certificates,
		Cluster: func() string { return n.members.Ident.ClusterID() },
		Node:    func() string { return n.self.Name },
		Log:     n.log,
	}), nil
}

func madeOf(info BackupInfo) backups.Made {
	return backups.Made{Index: info.Index, Time: info.Time, Size: info.Size}
}

// keepBackups makes one of the nodes that are to make backups do it, until ctx ends.
func keepBackups(ctx context.Context, n *Node) {
	for ctx.Err() == nil {
		err := n.roles.HoldClaim(ctx, state.ClaimRole{Role: keyspace.OwnPrefix + "backup", Wait: true}, n.upkeep.backups.Run)
		n.log.Debug("this node no longer makes backups", "why", err)
		select {
		case <-time.After(time.Second): // a full state refuses the claim at once
		case <-ctx.Done():
		}
	}
}

// backupRecordOf is the value of backupRecord.
type backupRecordOf struct {
	backups.Verified
	Every time.Duration
}

// lastBackup returns the last automatic backup that counts. A record that cannot be read stands for
// none: the next backup replaces it.
func lastBackup(s *state.State) (backups.Verified, bool) {
	r, ok := readBackupRecord(s)
	return r.Verified, ok
}

func readBackupRecord(s *state.State) (r backupRecordOf, ok bool) {
	v, ok := s.Records.Get(keyspace.Tree(backupRecord))
	if !ok || json.Unmarshal(v.Value, &r) != nil {
		return backupRecordOf{}, false
	}
	return r, true
}

// certificatesChanged returns the index of the newest entry that has stored a part of a certificate
// that is still there.
func certificatesChanged(s *state.State) (newest uint64) {
	for _, v := range state.Each(s.Records, keyspace.Below("certificates")) {
		newest = max(newest, v.Index)
	}
	return newest
}

// status returns what is known of the last automatic backup, nil if nobody makes any. every is this
// node's own setting.
func (u *upkeep) status(s *state.State, every time.Duration) *status.Backup {
	r, ok := readBackupRecord(s)
	if !ok && u.backups == nil {
		return nil
	}
	out := &status.Backup{Time: r.Time, Name: r.Name, Node: r.Node, Index: r.Index, Size: r.Size, Every: r.Every, Err: u.failure()}
	if out.Makes = u.backups != nil; !ok {
		out.Every = every
	}
	return out
}

// failure says why this node has failed to make a backup, empty if it has not.
func (u *upkeep) failure() string {
	if u.backups == nil {
		return ""
	}
	return u.backups.Failure()
}
