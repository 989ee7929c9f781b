#!/usr/bin/env bash
# Makes a backup, loses all disks, and restores the cluster into empty directories.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

healthy
before=$(serial 198.18.0.101)
file=/backups/drill-$(date +%s).backup

say "Make a backup, and read it back. It is sealed: without the secret it is noise."
show flotilla backup -out "$file"
show flotilla backup verify "$file"

say "All three machines are gone, with their disks."
show docker kill "$(container n1)" "$(container n2)" "$(container n3)"
for n in n1 n2 n3; do
	docker rm "$(id $n)" >/dev/null
	empty $n
done

say "Restore into the empty directory of one machine, and start it. It serves the certificate at once."
show offline n1 restore -dir /data "$file"
show "${compose[@]}" up -d --no-deps n1
await 30 "the certificate is served" serves 198.18.0.11 "$before"
show flotilla status

say "Start the others with empty directories. They join."
show "${compose[@]}" up -d --no-deps n2 n3
await 60 "three nodes are ready" ready
healthy
show flotilla status
serves 198.18.0.101 "$before" || failed "another certificate is served"
