package flotilla

// SetClock has the clock of the node that c is for run at that rate: 1.01 is one part in a hundred too fast.
func SetClock(c *Config, rate float64) { c.rate = rate }
