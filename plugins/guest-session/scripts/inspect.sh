# shellcheck shell=bash disable=SC2154
# Tells of the sessions of backend $2 below $1: those whose ids follow, or all. Prints fields that
# end in NUL: "banger-sessions-1", twelve fields for each session, "end". A session that does not exist
# is left out.
set -u
export LC_ALL=C
root=$1 backend=$2
shift 2
if [[ $# -eq 0 ]]; then
    shopt -s nullglob
    for dir in "$root"/*/; do
        dir=${dir%/}
        set -- "$@" "${dir##*/}"
    done
fi
measure "$@"

printf 'banger-sessions-1\0'
for id in "${known[@]}"; do
    # A directory that lost its mark is told of where it was asked for by id.
    { read_value "$root/$id/backend" 64 && [[ $value != "$backend" ]]; } || tell "$id"
done
printf 'end\0'
