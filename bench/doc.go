// Package bench holds the benchmarks that run flotilla beside other software, in processes of its own, or for long: they are in
// its test files, and README.md says how to run them. It is a module of its own, so that nobody who imports flotilla has etcd in
// the module graph.
package bench
