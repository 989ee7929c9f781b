package replica

import (
	"errors"
	"fmt"
	"log/slog"

	"github.com/hashicorp/raft"

	"github.com/flotilla-ha/flotilla/internal/durable"
	"github.com/flotilla-ha/flotilla/internal/state"
)

// Plant writes what raft needs to begin with the state s, whose servers all vote: a snapshot, its
// term, and an empty log. There must be none of them in dir. Raft must not run on it yet.
func Plant(dir *durable.Dir, s *state.State, log *slog.Logger) error {
	d, err := OpenDisk(dir, DiskOptions{Create: true, Log: log})
	if err != nil {
		return err
	}
	if err = d.run(func() error { return d.plant(s) }); err != nil {
		err = fmt.Errorf("writing the state: %w", err)
	}
	return errors.Join(err, d.Close())
}

func (d *Disk) plant(s *state.State) error {
	// Terms only rise: entries behind the snapshot must not have an older one than the snapshot. The
	// term gets to the disk together with a vote.
	if err := errors.Join(
		d.stable.SetUint64([]byte("CurrentTerm"), s.Term()),
		d.stable.SetUint64([]byte("LastVoteTerm"), s.Term()),
		d.stable.Set([]byte("LastVoteCand"), []byte(s.Servers[0])),
	); err != nil {
		return err
	}
	var conf raft.Configuration
	for _, id := range s.Servers {
		conf.Servers = append(conf.Servers, raft.Server{ID: raft.ServerID(id), Address: raft.ServerAddress(id)})
	}
	_, peers := raft.NewInmemTransport("") // only encodes the addresses of the servers
	sink, err := d.snaps.Create(raft.SnapshotVersionMax, s.Index, s.Term(), conf, s.Index, peers)
	if err != nil {
		return err
	}
	if err := state.WriteSnapshot(sink, s); err != nil {
		return errors.Join(err, sink.Cancel())
	}
	return sink.Close()
}
