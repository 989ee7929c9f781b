// Package bench has benchmarks that run for long, run flotilla in several processes, or compare it
// with other software. They are in its test files. README.md says how to run them. The package is a
// module of its own, so that programs that import flotilla do not get etcd into their module graph.
package bench
