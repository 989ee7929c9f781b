#!/usr/bin/env bash
# Adds a fourth node, and removes it.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

healthy
say "Start n4 with an empty directory and the secret. It joins by itself, and votes after ten seconds."
show "${compose[@]}" --profile spare up -d --no-deps n4
await 30 "n4 is ready" flotilla health n4
show flotilla members
is n4 ready || failed "n4 is no member"

say "Remove it: stop it, then tell the cluster. Its directory is of no use any more."
show docker stop -t 40 "$(container n4)"
await 30 "n4 has gone" is n4 absent
show flotilla members remove n4
docker rm "$(id n4)" >/dev/null
docker volume rm "${project}_n4" >/dev/null
healthy
show flotilla members
[[ -z $(members '^n4$' .) ]] || failed "n4 is a member"
