package metric

// Type is how the samples of a Family behave.
type Type string

// The types.
const (
	Counter   Type = "counter"   // only rises, and begins at 0 with each process
	Gauge     Type = "gauge"     // rises and falls
	Histogram Type = "histogram" // counts observations in buckets
)

// Family is a metric: all samples with one name.
type Family struct {
	// Name is the name, such as flotilla_lease_remaining_seconds. That of a Counter ends in _total.
	Name string

	// Help says in a sentence what it means.
	Help string

	// Type is how its samples behave.
	Type Type

	// Labels are the names of the labels that each sample has, in their order.
	Labels []string

	// Samples are the values. There may be none.
	Samples []Sample
}

// Sample is a value of a Family.
type Sample struct {
	// Values are the values of the family's labels, in their order.
	Values []string

	// Value is the value. It is not used for a Histogram.
	Value float64

	// Histogram is the value of a Histogram. It is nil for other types.
	Histogram *Observations
}

// Observations are what a Histogram has counted.
type Observations struct {
	// Buckets are the counts by upper bound, in rising order, without that of +Inf. Each count
	// includes those before it.
	Buckets []Bucket

	// Count is how many observations there were, and Sum their sum.
	Count uint64
	Sum   float64
}

// Bucket is how many observations were at most Bound.
type Bucket struct {
	Bound float64 // included
	Count uint64  // of all observations up to there
}
