#!/usr/bin/env bash
# Evicts a node whose machine was taken over, while clients make requests, and sets it up anew.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

begin_secrets
healthy
before=$(serial 198.18.0.101)
await 30 "n1 or n2 leads" flotilla members transfer n1

say "Cut the machine off. Here it is switched off."
show docker kill "$(container n3)"
await 30 "n3 has gone" is n3 absent

say "Make a new secret, and add its line to the file on every other node."
printf '$ flotilla keygen >new\n'
flotilla keygen >"$tmp/new"
give "$tmp/former" "$tmp/new"
for n in n1 n2; do await 10 "$n has read the file" has "$since" $n; done

say "Evict it. Clients make requests all the time, each with a new handshake."
declare -A load
for i in 1 2; do
	docker exec "$ops" /probe count -roots /trust/root.pem -at "198.18.0.10$i:443" -n 100 "https://$name/" >"$tmp/count$i" 2>&1 &
	load[$i]=$!
done
show flotilla evict -secret-file /secret/flotilla n3
for i in 1 2; do
	wait "${load[$i]}" || failed "the client of 198.18.0.10$i: $(<"$tmp/count$i")"
	tail -n 1 "$tmp/count$i"
	grep -q '^requests=100 failed=0 ' "$tmp/count$i" || failed "requests to 198.18.0.10$i failed: $(<"$tmp/count$i")"
done
show flotilla members
[[ -z $(members '^n3$' .) ]] || failed "n3 is a member"
after=$(serial 198.18.0.101)
[[ $after != "$before" ]] || failed "the certificate is the former one"

say "Take the former line out of the file. Nobody talks to a machine that has the former secret alone."
give "$tmp/new"
for n in n1 n2; do await 10 "$n has read the file" has "$since" $n; done
refuses_former

say "Set the machine up anew, with the new secret and an empty directory."
docker rm "$(id n3)" >/dev/null
empty n3
show "${compose[@]}" up -d --no-deps n3
await 60 "three nodes vote" votes 3
healthy
show flotilla members
serves 198.18.0.103 "$after" || failed "n3 serves another certificate"
