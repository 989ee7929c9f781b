package main

// aspect is one of the things that grow with the size of a cluster.
type aspect struct {
	file, title, y string
	series         []series
}

// charts returns all charts, in the order of the document.
func charts() []chart {
	all := []chart{
		{
			file: "slowdisk.svg", title: "A write of 4 KiB, while each fsync takes longer", bench: "SlowDisk", vary: "fsync-ms",
			x: "fsync, ms", y: "ms",
			series: []series{{"p50-ms", "flotilla, p50"}, {"raft-p50-ms", "raft + raft-boltdb, p50"}},
			onlyInTables: []series{
				{"ratio", "ratio of p50"}, {"p99-ms", "flotilla, p99"}, {"raft-p99-ms", "raft + raft-boltdb, p99"},
				{"syncs", "syncs for a write, flotilla"}, {"raft-syncs", "syncs for a write, raft"},
			},
		},
		{
			file: "day.svg", title: "Three nodes in one process for a simulated day", bench: "Day", vary: "hours",
			x: "simulated hours", y: "MiB",
			series:       []series{{"dir-MiB", "largest directory"}, {"rss-MiB", "RSS of the process"}, {"heap-MiB", "heap of the process"}},
			onlyInTables: []series{{"writes", "writes so far"}},
		},
	}
	write := aspect{"write", "A write of 4 KiB", "ms", []series{{"p50-ms", "p50"}, {"p99-ms", "p99"}}}
	restart := aspect{"restart", "From the start of a killed node until it is ready", "ms", []series{{"restart-ms", "median of three"}}}
	memory := aspect{"memory", "Memory of a node", "MiB", []series{{"rss-MiB", "RSS"}}}
	idle := aspect{"idle", "Processor time of a node at rest", "% of a core", []series{{"idle-%core", "mean of the nodes"}}}
	ends := []series{{"first-ms", "the first"}, {"last-ms", "the last"}}
	for _, g := range []struct {
		bench, vary, x string
		aspects        []aspect
	}{
		{"GrowthRecords", "MiB", "MiB of records", []aspect{write, restart, memory, idle}},
		{"GrowthNames", "names", "names with a certificate", []aspect{write, restart, memory, idle}},
		{"GrowthNodes", "nodes", "nodes", []aspect{write, restart, memory, idle}},
		{"GrowthRoles", "roles", "roles", []aspect{
			write, restart, memory, idle, {"move", "From the kill of the holder to the grant elsewhere", "ms", ends},
			{"planned", "From the shutdown of the holder to the grant elsewhere", "ms", []series{{"planned-first-ms", "the first"}, {"planned-last-ms", "the last"}}},
		}},
		{"GrowthAddresses", "addresses", "addresses", []aspect{idle, {"move", "From the cut of a machine until others have its addresses", "ms", ends}}},
	} {
		for _, one := range g.aspects {
			all = append(all, chart{
				file: g.vary + "-" + one.file + ".svg", title: one.title + ", by " + g.x, bench: g.bench, vary: g.vary,
				x: g.x, y: one.y, logX: true, series: one.series,
			})
		}
	}
	return all
}
