package diagnosis

import (
	"bytes"
	"runtime"
	"strings"
)

// maxStacks is the length of the stacks of all goroutines in bytes. Those behind it are cut.
const maxStacks = 1 << 20

// Stacks returns the stacks of all goroutines, without the arguments of the functions: a secret may
// be among them. It has at most 1 MiB.
func Stacks() []byte {
	buf := make([]byte, maxStacks)
	return plainStacks(buf[:runtime.Stack(buf, true)], maxStacks)
}

// plainStacks takes the arguments of functions and the labels of goroutines out of stacks. Stacks
// that fill their limit were cut, possibly within an argument: the last line goes.
func plainStacks(stacks []byte, limit int) []byte {
	if len(stacks) >= limit {
		stacks = stacks[:bytes.LastIndexByte(stacks, '\n')+1]
	}
	var out strings.Builder
	for line := range strings.Lines(string(stacks)) {
		line = strings.TrimSuffix(line, "\n")
		switch {
		case strings.HasPrefix(line, "goroutine "):
			if head, _, labelled := strings.Cut(line, "{"); labelled {
				line = strings.TrimRight(head, " ,[") + " …]:"
			}
		case line == "", strings.HasPrefix(line, "\t"), strings.HasPrefix(line, "created by "), strings.HasPrefix(line, "..."):
		default:
			i := strings.LastIndexByte(line, '(')
			if i < 0 {
				continue // nothing that the runtime writes today
			}
			line = line[:i] + "(…)"
		}
		out.WriteString(line + "\n")
	}
	return []byte(out.String())
}
