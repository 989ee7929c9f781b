// Package browsertest looks at the status page with Chromium. It is a module of its own, so that
// those who use flotilla do not download what drives a browser.
//
// The tests serve package page with clusters of package viewtest, and check what only a browser
// knows: that nothing is wider than the window, that nothing is refused by the page's own policy,
// what a keyboard reaches, what assistive technology gets, how contrasts come out, and that an
// update leaves alone what the user has unfolded. Without Chromium they are skipped.
//
//	GOWORK=off go test .
//	GOWORK=off go test -run Pictures -pictures ../../../docs/pictures .
package browsertest
