// Package viewtest has clusters in all sorts of states, for tests of package view and of those who
// show a cluster.
//
// The clusters are the same in each call: their times are relative to Today, and their nodes always
// have the same IDs. Each call makes new ones, so a test may change what it gets.
package viewtest
