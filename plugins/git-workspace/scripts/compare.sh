# shellcheck shell=bash disable=SC2154,SC2034
# Compares the snapshot with a base, away from the working copy: in a repository beside it that
# borrows its objects and has no configuration, attributes, grafts or replacements, so that nothing
# the agent has set up changes what is told or exported. Needs repository.sh and snapshot.sh.

# More bytes of changes than this are not told: what reads them has limits too.
told_bytes=2000000
told_changes=10000

# $1: a commit or a ref, or the id of the empty tree; where it is empty, the head, or the empty tree
# where there is no commit yet. Sets `base` to the full id.
resolve_base() {
    empty_tree=$(plain_git hash-object -t tree --stdin </dev/null) || exit 1
    if [[ -z $1 ]]; then
        base=${head:-$empty_tree}
    elif [[ $1 == "$empty_tree" ]]; then
        base=$1
    else
        base=$(plain_git rev-parse --quiet --verify --end-of-options "$1^{commit}" 2>/dev/null) ||
            refuse 3 "\`$1\` is no commit in $PWD"
    fi
}

# Lists submodules in which something is not committed: only these still differ from an index to which
# all was added.
list_unclean() {
    local path
    plain_git diff-files --name-only --ignore-submodules=none -z >"$scratch/differing" || exit 1
    while IFS= read -r -d '' path; do
        [[ ! -e ./$path/.git ]] || printf '%s\0' "$path"
    done <"$scratch/differing" >"$scratch/unclean"
}

# Lists submodules with work of their own: paths and the commits that the base has them at, or nothing.
submodules() {
    local modes path of
    local -A seen=()
    {
        cat -- "$scratch/unclean" || exit 1
        # Moved or new.
        compare --raw -z | while IFS= read -r -d '' modes && IFS= read -r -d '' path; do
            [[ ${modes##* } != R* ]] || IFS= read -r -d '' path
            [[ $modes != ":"??????" 160000 "* ]] || printf '%s\0' "$path"
        done
    } | while IFS= read -r -d '' path; do
        [[ -z ${seen[x$path]:-} ]] || continue
        seen[x$path]=1
        of=$(plain_git rev-parse --verify --quiet "$base:$path^{object}") || of=
        # A file of the base is no commit.
        [[ $(plain_git ls-tree -z "$base" -- "$path" | head -c 6) == 160000 ]] || of=
        printf '%s\0%s\0' "$path" "$of"
    done
}

# Enters that repository. Sets `branch`, and `name` and `email` of who commits in the working copy.
leave_copy() {
    local format shallow
    list_unclean
    branch=$(plain_git symbolic-ref --quiet --short HEAD) || branch=
    name=$(plain_git config --get user.name) || name=
    email=$(plain_git config --get user.email) || email=
    format=$(plain_git rev-parse --show-object-format) || exit 1
    shallow=$(plain_git rev-parse --path-format=absolute --git-path shallow && printf x) || exit 1
    shallow=${shallow%$'\n'x}
    export GIT_CONFIG_GLOBAL=/dev/null GIT_CONFIG_NOSYSTEM=1 GIT_ATTR_NOSYSTEM=1 GIT_NO_REPLACE_OBJECTS=1
    unset GIT_INDEX_FILE
    (
        unset GIT_OBJECT_DIRECTORY GIT_ALTERNATE_OBJECT_DIRECTORIES
        plain_git init --quiet --bare --template= --object-format="$format" -- "$scratch/repository"
    ) || exit 1
    if [[ -s $shallow ]]; then
        cp -- "$shallow" "$scratch/repository/shallow" || exit 1
    fi
    export GIT_DIR=$scratch/repository
    plain_git config core.attributesFile /dev/null || exit 1
    cd -- "$scratch" || exit 1
}

# $@: further options. What differs between the base and the snapshot.
compare() {
    plain_git diff-tree -r --find-renames -l1000 --no-ext-diff --no-textconv --full-index "$@" "$base" "$tree" --
}

# Prints fields that end in NUL: "banger-git-2", head, branch, base, tree, number of commits, "all"
# or "cut", then git's own name-status list or its beginning, then "submodules" and for each that has work
# of its own its path and the commit that the base has it at, then "end".
report() {
    local commits=0 range=$base..$head how='all'
    [[ $base != "$empty_tree" ]] || range=$head
    if [[ -n $head && $head != "$base" ]]; then
        commits=$(plain_git rev-list --count "$range" --) || exit 1
    fi
    compare --name-status -z >"$scratch/changes" || exit 1
    [[ $(wc -c <"$scratch/changes") -le $told_bytes ]] || how='cut'
    printf '%s\0' banger-git-2 "$head" "$branch" "$base" "$tree" "$commits" "$how"
    if [[ $how == all ]]; then
        cat -- "$scratch/changes" || exit 1
    else
        some_changes <"$scratch/changes"
    fi
    printf 'submodules\0'
    submodules || exit 1
    printf 'end\0'
}

# The first of the changes on stdin.
some_changes() {
    local count status path
    for ((count = 0; count < told_changes; count++)); do
        IFS= read -r -d '' status && IFS= read -r -d '' path || return 0
        printf '%s\0%s\0' "$status" "$path"
        if [[ $status == R* ]]; then
            IFS= read -r -d '' path || return 0
            printf '%s\0' "$path"
        fi
    done
}
