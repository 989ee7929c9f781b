package rafttransport

import "encoding/binary"

// annotation goes with an AppendEntries or InstallSnapshot, beside what raft says. It lies in the
// field Leader, where older versions of raft had the leader's name. raft does not look there since
// requests carry a header.
type annotation struct {
	notify bool   // sent by Tell: to be answered when the commit was applied
	known  bool   // sum is known
	sum    uint64 // of the sender's log at the entry that the request names
}

const (
	annotationSize = 9
	flagNotify     = 1
	flagKnown      = 2
)

func (a annotation) encode() []byte {
	b := make([]byte, 1, annotationSize)
	if a.notify {
		b[0] |= flagNotify
	}
	if a.known {
		b[0] |= flagKnown
	}
	return binary.BigEndian.AppendUint64(b, a.sum)
}

// decodeAnnotation returns the zero annotation if b is none. Flags that it does not know are
// ignored: a newer version may add some that an older one need not understand.
func decodeAnnotation(b []byte) annotation {
	if len(b) != annotationSize {
		return annotation{}
	}
	return annotation{
		notify: b[0]&flagNotify != 0,
		known:  b[0]&flagKnown != 0,
		sum:    binary.BigEndian.Uint64(b[1:]),
	}
}
