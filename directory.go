package flotilla

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/flotilla-ha/flotilla/internal/durable"
	"github.com/flotilla-ha/flotilla/internal/membership"
	"github.com/flotilla-ha/flotilla/internal/seal"
	"github.com/flotilla-ha/flotilla/internal/wire"
)

// droppedTime is how long a node asks its cluster whether it has dropped the secret of a directory.
const droppedTime = 5 * time.Second

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
		"dir", dir.Path(), "opens with", id.Key)
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
