package metric

import (
	"bufio"
	"fmt"
	"io"
	"iter"
	"math"
	"mime"
	"slices"
	"strconv"
	"strings"
)

// Format is a text format.
type Format int

const (
	// Text is the text format 0.0.4 of Prometheus.
	Text Format = iota

	// OpenMetrics is OpenMetrics 1.0.0.
	OpenMetrics
)

// ContentType returns the header Content-Type of the format.
func (f Format) ContentType() string {
	if f == OpenMetrics {
		return "application/openmetrics-text; version=1.0.0; charset=utf-8; escaping=underscores"
	}
	return "text/plain; version=0.0.4; charset=utf-8; escaping=underscores"
}

// Negotiate returns the format that the header Accept asks for: Text, unless it prefers OpenMetrics
// in a version that Write knows.
func Negotiate(accept string) Format {
	best, format := -1.0, Text
	for part := range strings.SplitSeq(accept, ",") {
		media, params, err := mime.ParseMediaType(part)
		if err != nil {
			continue
		}
		q := 1.0
		if v, ok := params["q"]; ok {
			if q, err = strconv.ParseFloat(v, 64); err != nil || math.IsNaN(q) {
				continue
			}
		}
		f := Text
		switch version := params["version"]; media {
		case "application/openmetrics-text":
			if !slices.Contains([]string{"", "0.0.1", "1.0.0"}, version) {
				continue
			}
			f = OpenMetrics
		case "text/plain":
			if version != "" && version != "0.0.4" {
				continue
			}
		case "text/*", "*/*":
		default:
			continue
		}
		if q > best && q > 0 {
			best, format = q, f
		}
	}
	return format
}

// Write writes the families in the format. It replaces what is no UTF-8 in the values of labels.
func Write(w io.Writer, format Format, families iter.Seq[Family]) error {
	b := bufio.NewWriterSize(w, 32<<10)
	for f := range families {
		writeFamily(b, format, &f)
	}
	if format == OpenMetrics {
		b.WriteString("# EOF\n")
	}
	return b.Flush()
}

func writeFamily(b *bufio.Writer, format Format, f *Family) {
	name := f.Name
	if format == OpenMetrics && f.Type == Counter {
		name = strings.TrimSuffix(name, "_total")
	}
	fmt.Fprintf(b, "# HELP %s %s\n# TYPE %s %s\n", name, escape(f.Help, format == OpenMetrics), name, f.Type)
	for i := range f.Samples {
		s := &f.Samples[i]
		if f.Type != Histogram {
			writeSample(b, f, "", s, "", s.Value)
			continue
		}
		h := s.Histogram
		for _, bucket := range h.Buckets {
			writeSample(b, f, "_bucket", s, number(bucket.Bound), float64(bucket.Count))
		}
		writeSample(b, f, "_bucket", s, "+Inf", float64(h.Count))
		writeSample(b, f, "_sum", s, "", h.Sum)
		writeSample(b, f, "_count", s, "", float64(h.Count))
	}
}

// writeSample writes a line. bound is the value of the label le, empty for none.
func writeSample(b *bufio.Writer, f *Family, suffix string, s *Sample, bound string, value float64) {
	b.WriteString(f.Name)
	b.WriteString(suffix)
	separator := byte('{')
	label := func(name, value string) {
		b.WriteByte(separator)
		separator = ','
		b.WriteString(name)
		b.WriteString(`="`)
		b.WriteString(escape(value, true))
		b.WriteByte('"')
	}
	for i, name := range f.Labels {
		label(name, s.Values[i])
	}
	if bound != "" {
		label("le", bound)
	}
	if separator == ',' {
		b.WriteByte('}')
	}
	b.WriteByte(' ')
	b.WriteString(number(value))
	b.WriteByte('\n')
}

func number(v float64) string {
	switch {
	case math.IsInf(v, 1):
		return "+Inf"
	case math.IsInf(v, -1):
		return "-Inf"
	}
	return strconv.FormatFloat(v, 'g', -1, 64)
}

// escape escapes a text for a line of its own, and its quotes if they are to be escaped too.
func escape(s string, quotes bool) string {
	s = strings.ToValidUTF8(s, "\uFFFD")
	if !strings.ContainsAny(s, "\\\n\"") {
		return s
	}
	s = strings.ReplaceAll(s, `\`, `\\`)
	s = strings.ReplaceAll(s, "\n", `\n`)
	if quotes {
		s = strings.ReplaceAll(s, `"`, `\"`)
	}
	return s
}
