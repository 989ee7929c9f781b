#!/usr/bin/env bash
# Loses the majority, goes on with one survivor, and lets the old majority come back.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

healthy
await 30 "three nodes vote" votes 3
before=$(serial 198.18.0.101)
mapfile -t old < <(flotilla members | awk '$1 == "n2" || $1 == "n3" { print $4 }')

say "n2 and n3 are gone at once. n1 serves clients at its own address, and can change nothing."
show docker kill "$(container n2)" "$(container n3)"
await 30 "there is no leader" leads none
show flotilla status || true
serves 198.18.0.11 "$before" || failed "n1 does not serve the certificate"

say "They cannot come back, as far as we know. Stop n1, and look first: this changes nothing."
show docker stop -t 40 "$(container n1)"
found=$(show offline n1 recover -dir /data -peers 198.18.0.12:7373)
echo "$found"
grep -q '^Nothing was changed' <<<"$found" || failed "it was no dry run"

say "Go on with n1 alone."
tail=()
if grep -q -- '-tail keep' <<<"$found"; then tail=(-tail keep); fi
show offline n1 recover -dir /data -yes "${tail[@]}"
show docker start "$(container n1)"
await 30 "n1 leads" leads n1
show flotilla members
await 30 "the certificate is at the address" serves 198.18.0.101 "$before"

say "The old majority is back after all, with its old disks. It meets n1, sets them aside, and joins."
show docker start "$(container n2)" "$(container n3)"
await 60 "three nodes are ready" ready
healthy
show flotilla status
for node in "${old[@]}"; do
	[[ $(flotilla members) != *"$node"* ]] || failed "$node is still a member"
done
(($(flotilla status -json | grep -oE '"SetAside": ?"[^"]+' | wc -l) == 3)) || failed "not all have set their former state aside"
serves 198.18.0.101 "$before" || failed "another certificate is served"
