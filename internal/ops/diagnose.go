package ops

import (
	"context"
	"errors"
	"time"

	"github.com/flotilla-ha/flotilla/internal/codec"
	"github.com/flotilla-ha/flotilla/internal/diagnosis"
	"github.com/flotilla-ha/flotilla/internal/remote"
)

const diagnoseTimeout = 5 * time.Second // for another node to report on itself

// serveDiagnose reports on this node, or has another node report on itself. It needs no cluster.
func (o *Operator) serveDiagnose(ctx context.Context, peer string, body []byte) ([]byte, error) {
	q, err := remote.DecodeDiagnoseRequest(body)
	if err != nil {
		return nil, codec.ErrMalformed
	}
	switch {
	case q.Node == "" || q.Node == o.cfg.Self.ID:
		report, reply := o.report(), remote.DiagnoseReply{}
		if q.Stacks {
			report.Log, reply.Stacks = o.cfg.Up.Journal(), diagnosis.Stacks()
		}
		reply.Report = report.Encode()
		return reply.Encode(), nil
	case o.cfg.Replica.IsServer(peer):
		return nil, errors.New("the question is for another node")
	case !o.cfg.Replica.IsServer(q.Node):
		return remote.DiagnoseReply{Why: o.cfg.Peers.NameOf(q.Node) + " is no member"}.Encode(), nil
	}
	ctx, cancel := context.WithTimeout(ctx, diagnoseTimeout)
	defer cancel()
	reply, err := o.cfg.Replica.Port.Call(ctx, q.Node, remote.CallDiagnose, body)
	if err != nil {
		return remote.DiagnoseReply{Why: unreached(ctx, err)}.Encode(), nil
	}
	return reply, nil
}

// report describes this node.
func (o *Operator) report() diagnosis.Report {
	dir := ""
	if d := o.cfg.Replica.Dir; d != nil {
		dir = d.Path()
	}
	g, s := o.cfg.Members.Greeting(), o.cfg.Store.State()
	return diagnosis.Report{
		ID: g.ID, Name: g.Name, Addr: g.Addr, Cluster: g.Cluster, Time: time.Now(), Since: o.since,
		Protocol: g.Protocol, Supports: g.Supports, Settings: g.Settings.Values, Lease: o.cfg.Timing.Lease,
		StateBytes: s.Bytes(), Records: s.Records.Len(),
		Build: diagnosis.OfBuild(), Process: diagnosis.OfProcess(), Disk: diagnosis.OfDisk(dir),
	}
}
