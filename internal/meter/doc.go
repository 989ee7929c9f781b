// Package meter counts and times what the parts of a node do, for the metrics of the node.
//
// A part has a struct of meters, whose zero value is ready, and counts in it. The root package
// reads the meters when somebody asks for the metrics. So a part knows neither names nor formats.
//
// # Guarantees
//
//   - Counting takes some nanoseconds, no lock and no memory, except for the first of a new label.
//   - A Counters has at most 100 labels. What comes after them counts as "other". So peers and
//     clients cannot fill the memory with names.
package meter
