#!/usr/bin/env bash
# Restarts all nodes one after another.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

healthy
for n in n1 n2 n3; do
	say "Restart $n: it drains, hands over and ends, and has 40 s for that. Go on when all is well."
	before=$(docker inspect -f '{{.State.Pid}}' "$(id $n)")
	show docker restart -t 40 "$(container $n)"
	[[ $(docker inspect -f '{{.State.Pid}}' "$(id $n)") != "$before" ]] || failed "$n is the same process"
	await 60 "$n is ready" flotilla health $n
	healthy
	show flotilla health
done
