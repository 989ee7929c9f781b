package page

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"html/template"
	"io"
	"time"
)

//go:embed page.html main.html tables.html page.css page.js
var files embed.FS

// renderer turns models into HTML.
type renderer struct {
	templates *template.Template
	style     template.CSS
	script    template.JS
	policy    string // the Content-Security-Policy of the document
}

func newRenderer() *renderer {
	read := func(name string) string {
		b, err := files.ReadFile(name)
		if err != nil {
			panic(err) // it is in the program
		}
		return string(b)
	}
	r := &renderer{
		templates: template.Must(template.ParseFS(files, "*.html")),
		style:     template.CSS(read("page.css")),
		script:    template.JS(read("page.js")),
	}
	r.policy = fmt.Sprintf("default-src 'none'; style-src %s; script-src %s; connect-src 'self'; img-src data:; "+
		"base-uri 'none'; form-action 'none'; frame-ancestors 'none'", hash(string(r.style)), hash(string(r.script)))
	return r
}

// hash returns the source expression of a Content-Security-Policy that admits an inline element.
func hash(content string) string {
	sum := sha256.Sum256([]byte(content))
	return "'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'"
}

// render returns what a look has shown.
func (r *renderer) render(m *model, began time.Time, changed <-chan struct{}) *seen {
	var main, update bytes.Buffer
	if err := r.templates.ExecuteTemplate(&main, "main.html", m); err != nil {
		main.Reset()
		template.HTMLEscape(&main, []byte("The page cannot be made: "+err.Error()))
	}
	e := json.NewEncoder(&update)
	e.SetEscapeHTML(false) // no browser takes it for HTML
	e.Encode(struct{ Title, Main string }{m.Title, main.String()})
	out := &seen{began: began, changed: changed, title: m.Title, main: main.Bytes()}
	out.event = fmt.Appendf(nil, "data: %s\n", update.Bytes()) // JSON has an end of its own
	return out
}

// document writes the whole document. It fails only if the client is gone.
func (r *renderer) document(w io.Writer, s *seen) {
	r.templates.ExecuteTemplate(w, "page.html", struct {
		Title  string
		Style  template.CSS
		Script template.JS
		Main   template.HTML
	}{s.title, r.style, r.script, template.HTML(s.main)})
}
