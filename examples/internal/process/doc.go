// Package process runs the nodes of a cluster as processes of this machine, which a test or a
// demonstration starts, kills and restarts.
//
// A node is the running program once more. An environment variable tells it so, and its settings
// arrive on its standard input as one line of JSON. Its end of input means that the parent is gone.
// The directory and the addresses of a node stay the same when it is restarted. [ClaimPorts] and
// [FreePorts] therefore return ports that no outgoing connection gets.
package process
