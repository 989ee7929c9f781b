#!/usr/bin/env bash
# Replaces a machine that is dead for good, with its disk.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

healthy
await 30 "three nodes vote" votes 3
before=$(serial 198.18.0.101)
dead=$(flotilla members | awk '$1 == "n3" { print $4 }')

say "n3 dies, and its disk with it."
show docker kill "$(container n3)"
docker rm "$(id n3)" >/dev/null
empty n3
await 30 "n3 has gone" is n3 absent
show flotilla members

say "A new machine starts with the secret and an empty directory. After ten seconds it votes in the place of the dead one."
show "${compose[@]}" up -d --no-deps n3
await 60 "the new n3 votes" votes 3
show flotilla members

say "The dead one would be removed after a day. Remove it now."
show flotilla members remove "$dead"
healthy
show flotilla health
[[ $(flotilla members) != *"$dead"* ]] || failed "$dead is a member"
serves 198.18.0.101 "$before" || failed "another certificate is served"
