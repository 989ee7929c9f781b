package membership

import (
	"errors"
	"fmt"
	"math/rand/v2"

	"github.com/flotilla-ha/flotilla/internal/plaintext"
)

// A cluster that is restored from a backup, or recovered from one survivor, keeps its identity and
// becomes another incarnation. Nodes of the former one may still be there, or come back. They must
// not act for the cluster any more: what they acknowledge is lost, and their addresses are taken.
// So nodes of different incarnations refuse each other. The one of the older generation gives up,
// sets its state aside, and joins as a new node. Of two incarnations of one generation neither
// replaces the other: an operator has to decide.
//
// An incarnation is a generation and a random number. Each restore begins the next generation. Two
// restores that do not know of each other begin different incarnations of one generation. The first
// incarnation of a cluster is 0.
const generationShift = 32

// NextIncarnation returns an incarnation of the generation after that of old.
func NextIncarnation(old uint64) uint64 {
	return (generation(old)+1)<<generationShift | uint64(rand.Uint32())
}

// generation returns how many restores have led to an incarnation.
func generation(incarnation uint64) uint64 { return incarnation >> generationShift }

// isOfOther reports whether a greeting comes from another incarnation of the node's own cluster.
func (id *Identity) isOfOther(g *Greeting) bool {
	return id.Cluster != "" && g.Cluster == id.Cluster && g.ClusterIncarnation != id.Incarnation
}

// refuseOther refuses a node of another incarnation. If that is the newer one, this node gives up.
func (g *Greetings) refuseOther(in *Greeting) *Refusal {
	own := g.ident.Identity()
	switch theirs, ours := generation(in.ClusterIncarnation), generation(own.Incarnation); {
	case theirs < ours:
		no := &Refusal{refusedSuperseded, supersededText(own.Cluster)}
		g.copies.refuse(in, no)
		return no
	case theirs > ours:
		// Before raft runs, this node's own greetings find that out: it may go on as a new node then.
		if g.replica.Raft.Load() != nil {
			g.life.Tasks.Go(func() {
				g.copies.GiveUp(&RefusedError{Refusal{refusedSuperseded, supersededText(own.Cluster)}, in.Addr})
			})
		}
		return &Refusal{refusedOutdated, "it takes part no more, because its cluster was restored or recovered since"}
	}
	no := &Refusal{refusedTwice, fmt.Sprintf("the cluster %s was restored or recovered twice, and this node belongs to the other one of the two; "+
		"stop the nodes of one of them, and empty their directories to have them join the other", plaintext.ShortID(own.Cluster))}
	g.copies.refuse(in, no)
	return no
}

func supersededText(cluster string) string {
	return "the cluster " + plaintext.ShortID(cluster) + " was restored or recovered since, and this node does not belong to what became of it"
}

// newestIncarnation returns the newest incarnation of the cluster of those who were greeted. The
// error says that two are of one generation. If they belong to several clusters, no node joins one.
func newestIncarnation(greeted map[string]Greeting) (newest uint64, err error) {
	cluster := ""
	for _, g := range greeted {
		if g.Cluster != "" && generation(g.ClusterIncarnation) > generation(newest) {
			newest, cluster = g.ClusterIncarnation, g.Cluster
		}
	}
	for _, g := range greeted {
		if g.Cluster == cluster && g.ClusterIncarnation != newest && generation(g.ClusterIncarnation) == generation(newest) {
			return 0, errors.New("the cluster was restored or recovered twice, and the peers belong to both; give this node the addresses of one")
		}
	}
	return newest, nil
}
