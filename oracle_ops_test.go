package flotilla_test

import (
	"fmt"
	"math/rand/v2"
	"path"
	"strconv"
	"strings"

	"github.com/flotilla-ha/flotilla"
)

// opKind is a method of the storage, or a scene of two callers.
type opKind int

const (
	opStore opKind = iota
	opLoad
	opDelete
	opExists
	opList
	opStat
	opLock     // waits 1.5 seconds at the most
	opTryLock  //
	opUnlock   //
	opHandOver // one waits for a held lock, and its holder gives it up
	opNone     // nothing is asked
)

// op is one operation, on one node. What it means does not depend on those before it, so that they
// can be left out.
type op struct {
	kind      opKind
	node      int
	key       string
	value     []byte
	recursive bool
	cancelled bool // its context is over before it begins
}

// String writes the operation down as a call.
func (o op) String() string {
	name := [...]string{"Store", "Load", "Delete", "Exists", "List", "Stat", "Lock", "TryLock", "Unlock", "HandOver", "nothing"}[o.kind]
	s := fmt.Sprintf("n%d.%s(%q", o.node, name, o.key)
	switch {
	case o.kind == opStore && o.value == nil:
		s += ", nil"
	case o.kind == opStore:
		s += fmt.Sprintf(", %q", o.value)
	case o.kind == opList:
		s += fmt.Sprintf(", recursive %v", o.recursive)
	}
	if o.cancelled {
		s += ", cancelled"
	}
	return s + ")"
}

func (o op) locks() bool { return o.kind >= opLock }

// randomOps makes operations on few keys, so that files, directories and names that begin alike
// meet often.
func randomOps(random *rand.Rand, nodes, n int) []op {
	ops := make([]op, n)
	for i := range ops {
		o := op{node: random.IntN(nodes), key: randomKey(random)}
		if i > 0 && !ops[i-1].locks() && random.IntN(3) == 0 {
			o.key = ops[i-1].key
		}
		switch p := random.IntN(100); {
		case p < 34:
			o.kind, o.value = opStore, randomValue(random)
		case p < 46:
			o.kind = opDelete
		case p < 58:
			o.kind = opLoad
		case p < 66:
			o.kind = opExists
		case p < 86:
			o.kind, o.recursive = opList, random.IntN(2) == 0
		case p < 94:
			o.kind = opStat
		case p < 96:
			o.kind = opTryLock
		case p < 98:
			o.kind = opUnlock
		case p < 99:
			o.kind = opHandOver
		default:
			o.kind = opLock
		}
		plain := strings.Trim(path.Clean("/"+o.key), "/")
		if o.locks() {
			o.key = []string{"a", "A", "a/b", "*.a", ""}[random.IntN(5)]
		}
		possible := plain != "" && !climbs(o.key) && len(plain) <= flotilla.MaxName && !strings.Contains(plain, "\x00")
		o.cancelled = random.IntN(40) == 0 && possible && o.kind != opHandOver
		ops[i] = o
	}
	return ops
}

func randomKey(random *rand.Rand) string {
	parts := []string{"a", "a", "a", "ab", "ab", "b", "b", "a.b", "A", "é", "a b", "%2f", "*", "~", "...", "\xff", "a\x01", "a\\b", "a\nb"}
	var key []string
	for range 1 + random.IntN(4) {
		key = append(key, parts[random.IntN(len(parts))])
		switch random.IntN(40) {
		case 0:
			key = append(key, "")
		case 1:
			key = append(key, ".")
		case 2, 3:
			key = append(key, "..")
		}
	}
	s := strings.Join(key, "/")
	switch random.IntN(40) {
	case 0, 1:
		return "/" + s
	case 2, 3:
		return s + "/"
	case 4:
		return "../" + s
	case 5:
		return []string{"", "/", ".", "..", "//", "a/..", "\x00"}[random.IntN(7)]
	case 6:
		return s + "\x00"
	case 7:
		return strings.Repeat(strings.Repeat("l", 200)+"/", 6) + s
	}
	return s
}

func randomValue(random *rand.Rand) []byte {
	switch random.IntN(6) {
	case 0:
		return nil
	case 1:
		return []byte{}
	case 2:
		return make([]byte, random.IntN(2000))
	}
	return strconv.AppendUint(nil, random.Uint64N(1000), 10)
}
