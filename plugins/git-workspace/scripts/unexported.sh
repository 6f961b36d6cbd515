# shellcheck shell=bash disable=SC2154,SC2015
# Finds what an agent has done since a working copy was prepared. Needs place.sh.

# $1: the working copy's top, $2: a part's path below it, $3: its key. Prints a line for each change: kind,
# name as git quotes it or number, the part; with tabs between.
unexported() {
    local state=() name commits where
    printf -v where "%q" "$2"
    [[ -n $2 ]] || where=
    if [[ -n $2 && ! -e $1/$2/.git ]]; then
        printf 'file\t%s\t%s\n' "$where" "$where"
        return
    fi
    enter_part "$1" "$2" "$3"
    mapfile -t state <"$git_dir/banger/state"
    # In a copy: looking changes nothing. By its time git knows which entries may be out of date.
    cp --preserve=timestamps -- "$raw_index" "$scratch/index" && raw_index=$scratch/index || exit 1
    raw update-index -q --refresh >/dev/null
    {
        raw diff-files --name-only --ignore-submodules=all || echo '?'
        raw ls-files --others --exclude-standard || echo '?'
        if [[ $(index_id) != "${state[1]:-}" ]]; then
            # Staged, and something else in the tree: one of both is only there.
            comm -12 <(own diff-index --cached --name-only --ignore-submodules=all "${state[2]}" | sort) \
                <(own diff-files --name-only --ignore-submodules=all | sort)
        fi
    } | sort -u | while IFS= read -r name; do
        printf 'file\t%s\t%s\n' "$name" "$where"
    done
    commits=$(own rev-list --count HEAD --not "${state[0]}" -- 2>/dev/null) || commits=0
    [[ $commits == 0 ]] || printf 'commits\t%s\t%s\n' "$commits" "$where"
}

# Whether there are commits on any branch, or stashed, that did not come from the user.
more_commits() {
    [[ $(GIT_DIR=$path/.git plain_git rev-list --count --all --not --glob=refs/banger/ 2>/dev/null) != 0 ]]
}
