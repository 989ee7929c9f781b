// Package importer brings the records of a directory into a cluster. The directory is certmagic's
// FileStorage, or holds objects that were downloaded from the bucket of an S3 storage.
//
// It works in three steps. Source.Scan lists the directory and groups the files that belong
// together, without opening one: this is the Plan. Source.Read reads one group, and check examines
// it. Run does this for all groups of a plan, some at a time, and stores each in one write. So a
// certificate is taken whole or not at all, and repeating an interrupted run completes it.
//
// Nothing outside the directory is read, wherever symbolic links lead.
package importer
