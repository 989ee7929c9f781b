#!/usr/bin/env bash
# Replaces the secret of the cluster while clients make requests, and lets a node join with the new
# one alone.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

# put replaces the file of secrets that all nodes and the operator read. Files of yours are renamed
# into place by what distributes them.
put() {
	tar -C "$tmp" --owner=0 --group=0 --mode=0600 -cf - flotilla | docker cp - "$holder:/secret"
}
holder=$(docker create -v "${project}_secret:/secret" "$image" /flotilla version)
tmp=$(mktemp -d)
trap 'docker rm -f "$ops" "$holder" >/dev/null; rm -rf "$tmp"' EXIT
has() { docker logs --since "$1" "$(container "$2")" 2>&1 | grep -q "the file of secrets has changed"; }

healthy
before=$(serial 198.18.0.101)
file=/backups/rotated-$(date +%s).backup
docker cp -q "$holder:/secret/flotilla" "$tmp/former"

say "Make a new secret, and add its line to the file on every node, below the one that is there."
printf '$ flotilla keygen >new\n'
flotilla keygen >"$tmp/new"
cat "$tmp/former" "$tmp/new" >"$tmp/flotilla"
since=$(date +%s)
put
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
cp "$tmp/new" "$tmp/flotilla"
put
show flotilla backup -out "$file"
show flotilla backup verify "$file"
healthy

say "Nobody talks to who has the former secret alone."
former() { docker exec -i "$ops" /flotilla status -secret-file - <"$tmp/former" 2>&1; }
printf '$ flotilla status -secret-file - <former\n'
if refused=$(former); then failed "with the former secret: $refused"; fi
echo "$refused"
grep -q "another cluster secret" <<<"$refused" || failed "it says another reason"

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
