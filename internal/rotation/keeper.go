package rotation

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/flotilla-ha/flotilla/internal/applied"
	"github.com/flotilla-ha/flotilla/internal/membership"
	"github.com/flotilla-ha/flotilla/internal/notify"
	"github.com/flotilla-ha/flotilla/internal/replica"
	"github.com/flotilla-ha/flotilla/internal/seal"
	"github.com/flotilla-ha/flotilla/internal/secrets"
	"github.com/flotilla-ha/flotilla/internal/self"
	"github.com/flotilla-ha/flotilla/internal/state"
)

// again is how soon a Keeper tries again what failed, and tells the leader again what the state
// does not show yet.
const again = time.Second

// errNews says that the state, or what the operator has given, is another by now.
var errNews = errors.New("there is news")

// errNoMember says that the node is no member: it has yet to join, or was removed.
var errNoMember = errors.New("this node is no member")

// KeeperConfig is what a Keeper needs of the node around it. All fields are set.
type KeeperConfig struct {
	Log     *slog.Logger           // gets what cannot be done
	Self    *self.Self             // this node
	Store   *applied.Store         // what it has applied
	Secrets *secrets.Set           // the secrets that this node has
	Replica *replica.Replica       // has the log, the snapshots and the port
	Members *membership.Membership // tells the leader

	// Reseal seals with the present secrets, and a new data key, what the node has on its disk
	// besides log and snapshots.
	Reseal func() error
}

// Keeper has a node follow the replacement of secrets and of data keys. Make one with NewKeeper.
type Keeper struct {
	Changed notify.Signal // the state has other secrets or keys, or another step of a replacement

	cfg KeeperConfig
}

// NewKeeper returns a Keeper. It does nothing before Run.
func NewKeeper(c KeeperConfig) *Keeper { return &Keeper{cfg: c} }

// Run follows the state until ctx ends. It must run once.
func (k *Keeper) Run(ctx context.Context) {
	reported := false
	_ = notify.Loop(ctx, func() (time.Time, bool) {
		changed, given := k.Changed.Wait(), k.cfg.Secrets.Changed.Wait()
		s := k.cfg.Store.State()
		err := k.follow(ctx, s, changed, given)
		if errors.Is(err, errNews) {
			return time.Now(), false
		}
		if errors.Is(err, errNoMember) {
			return time.Now().Add(again), false
		}
		if err != nil && !reported && ctx.Err() == nil {
			k.cfg.Log.Warn("this node does not follow the replacement of secrets or data keys; will try again", "err", err)
		}
		reported = err != nil
		if err == nil && k.isKnown(s) {
			return time.Time{}, false
		}
		if err == nil {
			k.cfg.Members.Announce(ctx)
		}
		return time.Now().Add(again), false
	}, &k.Changed, &k.cfg.Secrets.Changed)
}

// follow does what the state asks of this node. It ends with errNews when one of the channels is
// closed while it takes long.
func (k *Keeper) follow(ctx context.Context, s *state.State, changed, given <-chan struct{}) error {
	k.cfg.Secrets.Follow(s.Secrets(), s.Seals.Dropped)
	if err := k.cfg.Replica.Port.SetSecrets(k.cfg.Secrets.Accepted()); err != nil {
		return fmt.Errorf("proving the new secret to peers: %w", err)
	}
	snapshots, since := k.cfg.Replica.Snapshots, s.Seals.Since
	if s.Keys == nil || snapshots.Cleaned() >= since {
		return nil
	}
	if len(s.Servers) > 0 && !slices.Contains(s.Servers, k.cfg.Self.ID) {
		// A leader sends a node that it has removed what comes after as well. The directory of such a
		// node goes on to say with which secrets the node was a member: see membership.AskDropped.
		return errNoMember
	}
	// What this node had acknowledged before its start is true still: nothing older has come since.
	if m, _ := s.Member(k.cfg.Self.ID); m.Clean < since {
		news := make(chan struct{})
		stop := notify.Beside(ctx, func(ctx context.Context) {
			defer close(news)
			select {
			case <-changed:
			case <-given:
			case <-ctx.Done():
			}
		})
		defer stop()
		if !snapshots.Clean(ctx, since, news) {
			return errNews
		}
	}
	if err := k.cfg.Reseal(); err != nil {
		return fmt.Errorf("sealing this node's own certificates again: %w", err)
	}
	err := k.cfg.Members.Ident.Save(func(id *membership.Identity) { id.Key = names(s.Secrets()) })
	if err != nil {
		return fmt.Errorf("writing down which secrets the directory opens with: %w", err)
	}
	snapshots.SetCleaned(since)
	return nil
}

// isKnown reports whether the state shows what this node has acknowledged.
func (k *Keeper) isKnown(s *state.State) bool {
	m, ok := s.Member(k.cfg.Self.ID)
	own := k.cfg.Members.AsMember()
	return !slices.Contains(s.Servers, own.ID) || ok && m.Secrets == own.Secrets && m.Clean == own.Clean
}

func names(ids []seal.KeyID) string {
	var all []string
	for _, id := range ids {
		all = append(all, id.String())
	}
	return strings.Join(all, " ")
}
