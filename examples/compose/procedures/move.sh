#!/usr/bin/env bash
# Moves an address to another node by hand, takes everything off a node, and gives it back.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

role=vip/198.18.0.101
holder() { flotilla roles | awk -v r="$1" '$1 == r { print $2 }'; }
held_by() { flotilla roles | awk -v n="$1" '$2 == n' | grep -c . || true; }

healthy
await 30 "$role is held" eval '[[ -n $(holder $role) ]]'
show flotilla roles
from=$(holder $role)
to=n$((${from#n} % 3 + 1))

say "Move an address from $from to $to. Clients notice nothing."
show flotilla roles move $role $to
[[ $(holder $role) == "$to" ]] || failed "$role is at $(holder $role)"
[[ $(answers 198.18.0.101) == *"\"servedBy\": \"$to\""* ]] || failed "another node than $to answers"

say "Take everything off $to, as before work on that machine. It stays a member, and votes."
show flotilla drain $to
(($(held_by $to) == 0)) || failed "$to holds roles"
show flotilla roles
if show flotilla health; then failed "a drained node is healthy"; fi
show flotilla undrain $to
healthy
show flotilla health
