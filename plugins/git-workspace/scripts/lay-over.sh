# shellcheck shell=bash disable=SC2015
# Makes the working tree in $1 equal to the user's: checks the commit $2 out, removes the paths
# with which stdin begins ($3 bytes, each path ends in NUL), unpacks the tar archive that follows.
path=$1 head=$2 length=$3
cd -- "$path" || refuse 1 "there is no working copy at $path"

mapfile -d '' -t deleted < <(head -c "$length")
plain_git reset --quiet --hard "$head" </dev/null >&2 || refuse 1 "the commit $head could not be checked out"

# $@: paths. Removes them, and the directories that are left empty, as git would.
remove() {
    local name parents=()
    rm -rf -- "$@" || exit 1
    for name in "$@"; do
        [[ $name == */* ]] && parents+=("${name%/*}")
    done
    [[ ${#parents[@]} -eq 0 ]] || rmdir -p --ignore-fail-on-non-empty -- "${parents[@]}" 2>/dev/null
}
for ((at = 0; at < ${#deleted[@]}; at += 200)); do
    remove "${deleted[@]:at:200}"
done

tar --extract --file=- --no-same-owner --recursive-unlink --warning=no-timestamp >&2 ||
    refuse 1 "the changed files could not be unpacked"
# A lost connection looks like the end of the archive: its last member is the proof that it is whole.
end=.banger-${BANGER_END_MARK:?}
[[ -f $end ]] || refuse 1 "the changed files were cut short"
rm -f -- "$end" || exit 1
plain_git update-index -q --refresh </dev/null >/dev/null 2>&1
exit 0
