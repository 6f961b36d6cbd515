#!/bin/bash
# Runs inside the image's root: drops the host's certificates that Debian trusts already, then
# rebuilds the bundle with the others.
set -eu

dir=/usr/local/share/ca-certificates/host
declare -A known
add_known() {
    local file sum
    for file in "$@"; do
        sum=$(tr -d ' \r\n' <"$file" | sha256sum)
        known[$sum]=1
    done
}
add_known /usr/share/ca-certificates/mozilla/*.crt
for file in "$dir"/*.crt; do
    [ -e "$file" ] || continue
    sum=$(tr -d ' \r\n' <"$file" | sha256sum)
    if [ -n "${known[$sum]:-}" ]; then
        rm -f "$file"
    fi
done
update-ca-certificates
