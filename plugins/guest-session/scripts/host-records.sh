# shellcheck shell=bash disable=SC2154
# Prints the host records of the sessions of backend $2 below $1: "banger-host-records-1", then a line
# "ID LENGTH" for each, an empty line, and the records as `head -v` prints them, each after a
# line "==> ID/host-record <==". Where they would be too long for the host, the newest are
# printed.
set -u
export LC_ALL=C
shopt -s nullglob
cd -- "$1" 2>/dev/null || { printf 'banger-host-records-1\n\n' && exit; }
files=()
for file in */host-record; do
    id=${file%/*}
    [[ ${#id} -le 32 && $id =~ ^[a-z0-9]+$ && ! -L $id ]] || continue
    if read_value "$id/backend" 64 && [[ $value == "$2" ]]; then
        files+=("$file")
    fi
done
names=() total=0 list=''
while [[ ${#files[@]} -gt 0 ]] && read -r _ mode length file; do
    (((16#$mode & 8#170000) == 8#100000 && length <= 16384)) || continue
    ((total += length + 100, total < 1000000)) || break
    names+=("$file")
    list+="${file%/*} $length"$'\n'
done < <(stat -c '%Y %f %s %n' -- "${files[@]}" 2>/dev/null | sort -r -n)
printf 'banger-host-records-1\n%s\n' "$list"
if [[ ${#names[@]} -gt 0 ]]; then
    # What is removed meanwhile is left out.
    head -v -c 16384 -- "${names[@]}" 2>/dev/null
fi
exit 0
