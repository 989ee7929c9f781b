package diagnosis

import (
	"encoding/json"
	"os"
	"runtime"
	"runtime/debug"
	"slices"
	"time"
)

// Module is the path of the library.
const Module = "github.com/flotilla-ha/flotilla"

// Report is what a node says of itself beside its status. Over the wire it is JSON. A field that a
// node does not know is zero.
type Report struct {
	ID      string    // of the node
	Name    string    // for people
	Addr    string    // what peers dial
	Cluster string    // the cluster's ID; empty: none yet
	Time    time.Time // the node's wall clock
	Since   time.Time // when the node was opened, by the same clock

	Protocol int               // the version of the greeting that it speaks
	Supports uint64            // the highest cluster version that it supports
	Settings map[string]string // what all nodes should have alike
	Lease    time.Duration     // the length of a lease

	StateBytes int64 // of the replicated state: names and values
	Records    int   // how many records the state has

	Build   Build   // the program
	Process Process // what it takes of the machine
	Disk    Disk    // what its directory takes

	// Log is the newest part of its log, see Journal. Empty: nobody asked for it.
	Log string `json:",omitempty"`
}

// Encode returns the report as JSON.
func (r Report) Encode() []byte {
	b, err := json.Marshal(r)
	if err != nil {
		panic(err) // it has nothing that JSON cannot have
	}
	return b
}

// Decode is the inverse of Encode. It skips fields that it does not know.
func Decode(b []byte) (r Report, err error) {
	err = json.Unmarshal(b, &r)
	return r, err
}

// Build says which program a process runs.
type Build struct {
	Program  string            // the path of its main package
	Version  string            // of flotilla; empty: not known
	Go       string            // the version of Go
	System   string            // operating system and processor
	Settings map[string]string `json:",omitempty"` // some of the flags of the build
}

// Process is what a process takes of the machine.
type Process struct {
	PID        int           // of the system
	Goroutines int           // that exist
	CPUs       int           // of the machine, as far as the process may use them
	MaxProcs   int           // that run Go at a time
	HeapBytes  uint64        // in use
	SysBytes   uint64        // taken from the system
	GCs        uint32        // garbage collections since the start
	GCPause    time.Duration // of all of them together
}

// Disk is what a data directory takes, and what is left.
type Disk struct {
	Dir   string `json:",omitempty"` // empty: the node has none
	Files int    // regular ones
	Bytes int64  // of all files in it
	Free  int64  // bytes that the process could write; -1: not known
	Err   string `json:",omitempty"` // why the directory could not be looked at
}

// OfBuild describes the running program.
func OfBuild() Build {
	b := Build{Go: runtime.Version(), System: runtime.GOOS + "/" + runtime.GOARCH}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return b
	}
	b.Program, b.Version = info.Path, versionOf(info)
	// Others, such as -ldflags, may hold anything.
	shown := []string{"-race", "CGO_ENABLED", "GOAMD64", "GOARM64", "vcs.revision", "vcs.time", "vcs.modified"}
	b.Settings = make(map[string]string)
	for _, s := range info.Settings {
		if slices.Contains(shown, s.Key) {
			b.Settings[s.Key] = s.Value
		}
	}
	return b
}

// versionOf returns the version of the library in a program.
func versionOf(info *debug.BuildInfo) string {
	for _, m := range append([]*debug.Module{&info.Main}, info.Deps...) {
		if m.Path == Module && m.Version != "(devel)" {
			return m.Version
		}
	}
	return ""
}

// OfProcess describes the running process.
func OfProcess() Process {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return Process{
		PID: os.Getpid(), Goroutines: runtime.NumGoroutine(), CPUs: runtime.NumCPU(), MaxProcs: runtime.GOMAXPROCS(0),
		HeapBytes: m.HeapInuse, SysBytes: m.Sys, GCs: m.NumGC, GCPause: time.Duration(m.PauseTotalNs),
	}
}
