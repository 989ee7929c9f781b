#!/usr/bin/env bash
# Looks at everything and changes nothing.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

say "What does the cluster look like? Is it healthy?"
healthy
show flotilla status
show flotilla health
show flotilla members
show flotilla roles

say "What is in the directory of a node? It is mounted read-only here, and the node runs."
said=$(mount=:ro show offline n1 inspect /data)
echo "$said"
[[ $said == *"node       n1 "* ]] || failed "the directory is not that of n1"
