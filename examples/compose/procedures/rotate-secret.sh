#!/usr/bin/env bash
# Replaces the secret of the cluster while clients make requests, and lets a node join with the new
# one alone.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

begin_secrets
healthy
before=$(serial 198.18.0.101)
file=/backups/rotated-$(date +%s).backup

say "Make a new secret, and add its line to the file on every node, below the one that is there."
printf '$ flotilla keygen >new\n'
flotilla keygen >"$tmp/new"
give "$tmp/former" "$tmp/new"
for n in n1 n2 n3; do await 10 "$n has read the file" has "$since" $n; done

say "Clients make requests all the time, each with a new handshake, while the nodes replace it."
declare -A load
for i in 1 2 3; do
	docker exec "$ops" /probe count -roots /trust/root.pem -at "198.18.0.10$i:443" -n 200 "https://$name/" >"$tmp/count$i" 2>&1 &
	load[$i]=$!
done
show flotilla rotate secret -secret-file /secret/flotilla
for i in 1 2 3; do
	wait "${load[$i]}" || failed "the client of 198.18.0.10$i: $(<"$tmp/count$i")"
	tail -n 1 "$tmp/count$i"
	grep -q '^requests=200 failed=0 ' "$tmp/count$i" || failed "requests to 198.18.0.10$i failed: $(<"$tmp/count$i")"
done

say "Take the former line out of the file, and make a backup that the new secret opens."
give "$tmp/new"
show flotilla backup -out "$file"
show flotilla backup verify "$file"
healthy

say "Nobody talks to who has the former secret alone."
refuses_former

say "A node that has the new secret alone joins."
show "${compose[@]}" --profile spare up -d --no-deps n4
await 30 "n4 is ready" flotilla health n4
show docker stop -t 40 "$(container n4)"
await 30 "n4 has gone" is n4 absent
show flotilla members remove n4
docker rm "$(id n4)" >/dev/null
docker volume rm "${project}_n4" >/dev/null
healthy
serves 198.18.0.101 "$before" || failed "another certificate is served"
