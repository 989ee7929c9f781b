package page

import (
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode"

	"golang.org/x/net/html"

	"github.com/flotilla-ha/flotilla/event"
	"github.com/flotilla-ha/flotilla/internal/view"
	"github.com/flotilla-ha/flotilla/internal/view/viewtest"
	"github.com/flotilla-ha/flotilla/status"
)

// tokens calls f with each token of a piece of HTML, and checks that every element is closed.
func tokens(t *testing.T, content string, f func(html.Token)) {
	t.Helper()
	var open []string
	z := html.NewTokenizer(strings.NewReader(content))
	for z.Next() != html.ErrorToken {
		token := z.Token()
		switch name := token.Data; token.Type {
		case html.StartTagToken:
			if !slices.Contains([]string{"meta", "link", "br"}, name) {
				open = append(open, name)
			}
		case html.EndTagToken:
			if len(open) == 0 || open[len(open)-1] != name {
				t.Fatalf("</%s> closes %v", name, open)
			}
			open = open[:len(open)-1]
		}
		f(token)
	}
	if len(open) > 0 {
		t.Fatalf("%v are not closed", open)
	}
}

// visible returns the text of a piece of HTML, with a single space for all that is white.
func visible(t *testing.T, content string) string {
	t.Helper()
	var out strings.Builder
	tokens(t, content, func(token html.Token) {
		if token.Type == html.TextToken {
			out.WriteString(token.Data)
		}
	})
	return strings.Join(strings.Fields(out.String()), " ")
}

// harmless checks what holds for the page whatever it shows: it loads nothing, runs nothing but its
// script, has no styles but its own, and its parts are found by their names.
func harmless(t *testing.T, content string) {
	t.Helper()
	ids, wanted := make(map[string]int), make(map[string]bool)
	heading, elements := 0, make(map[string]int)
	reference := regexp.MustCompile(`^url\(#(.*)\)$`)
	tokens(t, content, func(token html.Token) {
		if token.Type != html.StartTagToken && token.Type != html.SelfClosingTagToken {
			return
		}
		elements[token.Data]++
		var level int
		if _, err := fmt.Sscanf(token.Data, "h%d", &level); err == nil && len(token.Data) == 2 {
			if level > heading+1 {
				t.Errorf("<%s> follows a heading of level %d", token.Data, heading)
			}
			heading = level
		}
		for _, a := range token.Attr {
			switch name := a.Key; {
			case name == "id":
				ids[a.Val]++
			case name == "aria-labelledby":
				wanted[a.Val] = true
			case name == "href" && strings.HasPrefix(a.Val, "#"):
				wanted[a.Val[1:]] = true
			case name == "href" && token.Data == "link" && strings.HasPrefix(a.Val, "data:image/svg+xml,"):
			case name == "fill":
				if found := reference.FindStringSubmatch(a.Val); found != nil {
					wanted[found[1]] = true
				} else {
					t.Errorf("fill is %q", a.Val)
				}
			case strings.HasPrefix(name, "on"), name == "style", name == "src", name == "srcset", name == "action", name == "href":
				t.Errorf("<%s> has %s=%q", token.Data, name, a.Val)
			case name == "scope" && token.Data != "th":
				t.Errorf("<%s> has a scope", token.Data)
			}
		}
	})
	for id, n := range ids {
		if n > 1 {
			t.Errorf("%d elements have the ID %s", n, id)
		}
	}
	for id := range wanted {
		if ids[id] == 0 {
			t.Errorf("there is no #%s", id)
		}
	}
	for name, most := range map[string]int{"script": 1, "style": 1, "link": 1, "h1": 1, "main": 1, "img": 0, "iframe": 0, "object": 0, "form": 0, "base": 0} {
		if elements[name] > most {
			t.Errorf("there are %d elements <%s>", elements[name], name)
		}
	}
	if elements["table"] != elements["caption"] {
		t.Errorf("%d tables have %d captions", elements["table"], elements["caption"])
	}
	if i := strings.IndexFunc(content, func(r rune) bool { return r != '\n' && unicode.In(r, unicode.Cc, unicode.Cf) }); i >= 0 {
		t.Errorf("there is a character that cannot be seen: %q", content[max(0, i-40):i+4])
	}
}

// documentOf returns the document that shows a model.
func documentOf(r *renderer, m *model) string {
	var out strings.Builder
	r.document(&out, r.render(m, time.Now(), nil))
	return out.String()
}

func TestDocument(t *testing.T) {
	r := newRenderer()
	all := viewtest.Clusters(t)
	for _, name := range slices.Sorted(maps.Keys(all)) {
		t.Run(name, func(t *testing.T) {
			m := newModel(all[name], everyKind(), viewtest.IDOne, viewtest.Today())
			content := documentOf(r, &m)
			harmless(t, content)
			if !strings.Contains(content, "<title>"+m.Title+"</title>") {
				t.Error("the title is missing")
			}
		})
	}
	t.Run("no answer", func(t *testing.T) {
		m := failedModel(errors.New("<b>"), everyKind(), viewtest.IDOne, viewtest.Today())
		content := documentOf(r, &m)
		harmless(t, content)
		if !strings.Contains(content, "&lt;b&gt;") {
			t.Error("the reason is missing")
		}
	})
}

// everyKind is some events of each severity, with and without optional parts.
func everyKind() []event.Event {
	var all []event.Event
	for i, s := range []event.Severity{event.Info, event.Warn, event.Error, "later"} {
		all = append(all, event.Event{Number: uint64(i), Time: viewtest.Today(), Node: "n1", Severity: s, Text: "t"})
		all = append(all, event.Event{
			Number: uint64(i + 9), Time: viewtest.Today().Add(-time.Minute), Severity: s, Text: "t", Kind: event.RoleMoved,
			Subject: "mailer", From: fmt.Sprint(i), To: fmt.Sprint(i + 1), Outage: time.Second, Cause: "c",
		})
	}
	return slices.Repeat(all, 4)
}

// hostileCluster is a cluster whose nodes have chosen these texts for everything.
func hostileCluster(a, b string, n int64) (*view.Cluster, []event.Event) {
	now := viewtest.Today()
	some := now.Add(time.Duration(n))
	c := new(view.Cluster)
	for i := range 3 {
		s := &status.Status{
			ID: a, Name: b, Addr: a, Cluster: b, Leader: a, LeaderName: b, Term: uint64(n), Index: uint64(n) + uint64(i), Ready: i == 0, Clock: a,
			Lease:   status.Lease{Held: true, LeftMillis: n},
			Members: []status.Member{{ID: a, Name: b, ClockAhead: time.Duration(n)}},
			Roles:   []status.Role{{Name: a, Group: b, Holder: a, Since: some, Outage: time.Duration(n)}, {Name: b, Remark: a, HoldDown: true}},
			Certificates: []status.Certificate{
				{Name: a, Issuer: b, Serial: a, NotBefore: some, NotAfter: now, Renewal: some, OCSPNextUpdate: some, DaysLeft: int(n), Err: b, Next: some},
				{Name: b, NotAfter: some, NotBefore: now, Renewal: now, Serial: b},
			},
			Tickets: status.Tickets{Key: a, AgeSeconds: n, Previous: int(n)},
			Space:   []status.Space{{What: a, Bytes: n, Limit: 99}, {What: b, Bytes: 99, Limit: n}},
			Backup:  &status.Backup{Name: a, Node: b, Time: some, Size: n, Every: time.Duration(n), Makes: true, Err: a},
			Waiting: []status.Wait{{What: a, Why: b, Since: some}},
			Peers:   []status.Peer{{Name: a, Differs: []string{b}}},
			Err:     []string{"", a, ""}[i],
		}
		c.Best = *s
		c.Nodes = append(c.Nodes, view.Node{Member: status.Member{ID: a, Name: b, Addr: a, Zone: b, Why: a, Voter: true, Supports: uint64(n)}, Status: s})
	}
	e := event.Event{
		Number: uint64(n), Time: now.Add(-time.Duration(n)), Kind: event.RoleMoved, Node: a, Subject: b, Text: a, Cause: b, From: a, To: b,
		Outage: time.Duration(n), Severity: event.Severity(a),
	}
	held := e
	held.Kind, held.Time = event.RoleHeldDown, now.Add(-time.Minute)
	return c, []event.Event{e, held}
}

// FuzzPage makes the page of a cluster whose nodes have chosen texts and numbers badly.
func FuzzPage(f *testing.F) {
	for _, s := range []string{"n1", "<script>alert(1)</script>", "\" onload=\"x", "'", "\u202e\u2066", "\x00\x1b[2J\r\n", "\xff\xfe", strings.Repeat("Z\u0351", 600), "</title></svg><img src=x>", "{{.}}", "#", "javascript:x"} {
		for _, n := range []int64{0, 1, -1, 1 << 62, -1 << 63, int64(20 * time.Minute)} {
			f.Add(s, "b", n)
			f.Add("a", s, n)
		}
	}
	r := newRenderer()
	f.Fuzz(func(t *testing.T, a, b string, n int64) {
		c, events := hostileCluster(a, b, n)
		m := newModel(c, events, a, viewtest.Today())
		content := documentOf(r, &m)
		if strings.Contains(content, "The page cannot be made") {
			t.Error("the template fails")
		}
		harmless(t, content)
	})
}

// Long names are cut, and found whole in a title.
func TestLongNames(t *testing.T) {
	long := strings.Repeat("n", 1000)
	c, events := hostileCluster("id", long, 5)
	m := newModel(c, events, "", viewtest.Today())
	content := documentOf(newRenderer(), &m)
	if short := fmt.Sprintf(`<bdi title="%s">%s…</bdi>`, long, long[:maxName]); !strings.Contains(content, short) {
		t.Error("the name is not cut")
	}
}

func BenchmarkThousandCertificates(b *testing.B) {
	all := viewtest.ThreeNodes()
	for _, s := range all {
		one := s.Certificates[0]
		one.NotBefore, one.Renewal = viewtest.Today().Add(-29*date), viewtest.Today().Add(31*date)
		s.Certificates = nil
		for i := range 1000 {
			one.Name, one.Serial = fmt.Sprintf("customer%04d.example.com", i), fmt.Sprint(i)
			s.Certificates = append(s.Certificates, one)
		}
	}
	c := viewtest.ClusterOf(b, all, nil)
	events := slices.Repeat(everyKind(), 8)
	r := newRenderer()
	b.ReportAllocs()
	var size int
	for b.Loop() {
		m := newModel(c, events, viewtest.IDOne, viewtest.Today())
		size = len(r.render(&m, time.Now(), nil).event)
	}
	b.ReportMetric(float64(size), "B/update")
}
