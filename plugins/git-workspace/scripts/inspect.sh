# shellcheck shell=bash disable=SC2154
# Tells of the working copy $1, compared with the base $2 or, where that is empty, with its head.
# Prints fields that end in NUL: "banger-git-1", head, branch, base, number of commits, then git's
# own name-status list, then "end". Exit code 3: no working copy, or no such base.
enter_copy "$1"
if [[ -n $2 ]]; then
    resolve_base "$2"
elif [[ -n $head ]]; then
    base=$head
else
    base=$(plain_git hash-object -t tree --stdin </dev/null) || exit 1
fi
branch=$(plain_git symbolic-ref --quiet --short HEAD) || branch=
commits=0
if [[ -n $head && $head != "$base" ]]; then
    commits=$(plain_git rev-list --count "$base..$head" --) || exit 1
fi
take_snapshot
printf '%s\0' banger-git-1 "$head" "$branch" "$base" "$commits"
compare --name-status -z || exit 1
printf 'end\0'
