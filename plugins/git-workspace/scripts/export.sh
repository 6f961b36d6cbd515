# shellcheck shell=bash disable=SC2154
# Prints the work in the working copy $1 since the base $2, or since its head where that is empty, as
# $3: "patch", "mbox" or "bundle". Before it come the length of the report in decimal digits, a line
# feed and the report (compare.sh), of the same moment. Where nothing differs, nothing
# comes after it. Exit code 3: no working copy, or no such base; 6: this format can't carry the commits.

# Sets `tip`: the head, or one more commit with what is not committed. Where the head is an ancestor
# of the base, that commit comes after the base: the way back is work too.
commit_work() {
    local parent=$head parents=() committed=$empty_tree
    if [[ $base != "$empty_tree" && $head != "$base" ]]; then
        if [[ -z $head ]] || plain_git merge-base --is-ancestor "$head" "$base"; then
            parent=$base
        fi
    fi
    if [[ -n $parent ]]; then
        parents=(-p "$parent")
        committed=$(plain_git rev-parse --verify --quiet "$parent^{tree}") || exit 1
    fi
    tip=$parent
    [[ $committed != "$tree" ]] || return 0
    tip=$(work_commit "${name:-guest}" "${email:-guest@localhost}" 2>/dev/null) ||
        tip=$(work_commit guest guest@localhost) || exit 1
}

# $1: who, $2: their address.
work_commit() {
    GIT_AUTHOR_NAME=$1 GIT_AUTHOR_EMAIL=$2 GIT_COMMITTER_NAME=$1 GIT_COMMITTER_EMAIL=$2 \
        plain_git commit-tree "${parents[@]}" -m 'Work that was not committed' "$tree"
}

as_patch() {
    compare --patch --binary --src-prefix=a/ --dst-prefix=b/ --unified=3 --inter-hunk-context=0 --diff-algorithm=myers
}

# Whether the commits are a sequence of patches. Sets `range` and `root` for them.
as_patches() {
    range=$base..$tip root=()
    [[ -n $tip ]] || return 0
    if [[ $base == "$empty_tree" ]]; then
        range=$tip root=(--root)
    elif ! plain_git merge-base --is-ancestor "$base" "$tip"; then
        refuse 6 "the head does not come after the base, so its commits are no sequence of patches"
    fi
    [[ $(plain_git rev-list --merges --count "$range" --) == 0 ]] ||
        refuse 6 "there are merges among the commits, which patches can't carry"
}

as_mbox() {
    plain_git format-patch --quiet --stdout --binary --full-index --find-renames -l1000 --always \
        --src-prefix=a/ --dst-prefix=b/ --no-signature "${root[@]}" "$range" --
}

as_bundle() {
    local range=("^$base")
    [[ $base != "$empty_tree" ]] || range=()
    plain_git update-ref refs/banger/work "$tip" || exit 1
    plain_git bundle create --quiet - refs/banger/work "${range[@]}"
}

enter_copy "$1"
resolve_base "$2"
take_snapshot
leave_copy
if [[ $3 != patch ]]; then
    commit_work
    [[ $3 != mbox ]] || as_patches
fi
report >"$scratch/report" || exit 1
wc -c <"$scratch/report" || exit 1
cat -- "$scratch/report" || exit 1
# Nothing is nothing in every format.
[[ $3 == patch || (-n $tip && $tip != "$base") ]] || exit 0
"as_$3"
