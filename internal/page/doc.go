// Package page is the status page of a node's health port: a cluster as its nodes describe it, for
// a browser.
//
// The page says what "flotilla status" says, in the same words, because both show a view.Cluster.
// It adds bars, a time line of the last hour, and the newest events. It needs no script: it then
// loads itself anew every ten seconds. With a script it stays, and the node sends what has changed.
//
// # Guarantees
//
//   - The document is complete in itself. Its Content-Security-Policy admits the one style and the
//     one script that it contains, by their hashes, and connections to the node. So whatever nodes,
//     roles and domains are called, nothing else is loaded or run.
//   - Texts of others pass plaintext.Safe, html/template and an isolation of their direction. Long
//     ones are cut. Lists have limits, and say how much they leave out.
//   - While nobody looks at the page, it does nothing. All viewers share one look at the cluster,
//     at most once a second. The look is made by the request of one of them, so nothing goes on
//     when all requests have ended.
//   - At most 32 viewers get updates. One more is told so, and its page tries again later. A viewer
//     that takes too long to read is cut off. Its browser comes back by itself.
//   - The page says when it is not up to date.
//
// # Assumptions
//
// Whom a request comes from has been checked: see package healthauth. The http.Server may have
// short timeouts: updates set their own.
//
// # Flow
//
//	GET /              ─┐
//	GET /page/updates  ─┴► shared.get ─► Config.Look, Events ─► newModel ─► renderer ─► HTML
//
// newModel turns a cluster into words and shares of a width. The templates only arrange them.
// page.js replaces what differs in the document, so that the place in the document, the focus and
// what is unfolded stay.
//
// The pictures in docs/pictures are made by the tests in browsertest, a module of its own. They
// look at the page with Chromium.
package page
