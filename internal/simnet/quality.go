package simnet

import (
	"math/rand/v2"
	"time"
)

const (
	segmentSize = 1460 // bytes of a packet that one segment carries
	headerSize  = 40   // bytes that each segment adds to the line

	minResend = 200 * time.Millisecond // before a lost segment is sent again, as with Linux
	maxResend = 2 * time.Minute
	dialAgain = time.Second // before a lost request for a connection is sent again, as with Linux
)

// Quality says how a path carries what is sent along it. Above it is TCP: lost bytes come late, and
// bytes that come twice are read once. The zero Quality has the latency of the network and no
// faults.
type Quality struct {
	// Latency is the time that a segment takes, in place of the network's. 0: the network's.
	Latency time.Duration

	// Jitter is the most that a segment takes longer, at random. Nothing overtakes: what was sent
	// behind a late segment of the same connection waits for it.
	Jitter time.Duration

	// Loss is the share of segments that are lost, from 0 to less than 1. The sender sends each again
	// when a round trip and 200 ms have passed, then after twice that time, and so on. Nothing is sent
	// again earlier.
	Loss float64

	// Duplicate is the share of segments that come twice, from 0 to 1. The receiver drops the second
	// one, so all that it costs is bandwidth.
	Duplicate float64

	// Bandwidth is the number of bytes, with 40 of headers for each segment, that pass in a second.
	// All connections share it. 0: there is no limit.
	Bandwidth int64
}

// line is a path with a quality.
type line struct {
	Quality
	free time.Time // when it has carried what was sent so far
}

// Seed sets the seed of what is random in the network: jitter, losses and duplicates. The default
// is 0.
func (n *Network) Seed(seed uint64) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.random = newRandom(seed)
}

func newRandom(seed uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, 1)) }

// SetQuality sets how the path from one host to another carries what is sent from now on.
func (n *Network) SetQuality(from, to string, q Quality) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if q == (Quality{}) {
		delete(n.lines, path{from, to})
		return
	}
	n.lines[path{from, to}] = &line{Quality: q}
}

// Quality returns what SetQuality has set for that path.
func (n *Network) Quality(from, to string) Quality {
	n.mu.Lock()
	defer n.mu.Unlock()
	if l := n.lines[path{from, to}]; l != nil {
		return l.Quality
	}
	return Quality{}
}

// latencyOf returns the time that a path takes without faults. The caller holds mu.
func (n *Network) latencyOf(p path) time.Duration {
	if l := n.lines[p]; l != nil && l.Latency > 0 {
		return l.Latency
	}
	return n.latency
}

// roundTrip returns the latency of a path there and back. The caller holds mu.
func (n *Network) roundTrip(p path) time.Duration {
	return n.latencyOf(p) + n.latencyOf(path{p.to, p.from})
}

// arrival returns when the last of so many bytes arrives that are sent now. The caller holds mu.
func (n *Network) arrival(p path, bytes int, now time.Time) time.Time {
	l := n.lines[p]
	if l == nil {
		return now.Add(n.latency)
	}
	segments := max(1, (bytes+segmentSize-1)/segmentSize)
	sent, late := 0, time.Duration(0)
	for range segments {
		copies, wait := n.attempts(l, n.roundTrip(p)+minResend)
		if l.Jitter > 0 {
			wait += time.Duration(n.random.Int64N(int64(l.Jitter) + 1))
		}
		sent, late = sent+copies, max(late, wait)
	}
	start := now
	if l.Bandwidth > 0 {
		if l.free.After(start) {
			start = l.free
		}
		size := float64(bytes)*float64(sent)/float64(segments) + float64(headerSize*sent)
		start = start.Add(time.Duration(size / float64(l.Bandwidth) * float64(time.Second)))
		l.free = start
	}
	return start.Add(n.latencyOf(p) + late)
}

// attempts draws how often a segment is sent until it arrives, duplicates included, and how much
// later it is therefore. The first wait is given, and doubles.
func (n *Network) attempts(l *line, wait time.Duration) (copies int, late time.Duration) {
	for copies = 1; l.Loss > 0 && wait < maxResend && n.random.Float64() < l.Loss; copies++ {
		late += wait
		wait *= 2
	}
	if l.Duplicate > 0 && n.random.Float64() < l.Duplicate {
		copies++
	}
	return copies, late
}

// dialTime returns how long it takes to ask for a connection and to be answered. The caller holds
// mu.
func (n *Network) dialTime(p path) time.Duration {
	total := n.roundTrip(p)
	for _, way := range []path{p, {p.to, p.from}} {
		l := n.lines[way]
		if l == nil {
			continue
		}
		_, late := n.attempts(l, dialAgain)
		total += late
		if l.Jitter > 0 {
			total += time.Duration(n.random.Int64N(int64(l.Jitter) + 1))
		}
	}
	return total
}
