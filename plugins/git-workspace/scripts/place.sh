# shellcheck shell=bash disable=SC2154,SC2015
# Makes one part of a working copy, the repository itself or a submodule, equal to its snapshot. Needs
# repository.sh. What a snapshot holds is described in wit/workspace.wit.
#
# Files are written through a git directory of their own, `banger/raw` in the part's, whose attributes
# switch every conversion off: the bytes in the working tree are those of the snapshot. Its index,
# `banger/index`, is kept: it tells the next time what has changed since.

# $1: the working copy's top, $2: the part's path below it, $3: its key. Enters the part; sets
# `git_dir`, `raw_index`, `top_dir`, `objects`, `part`, and `ref`, the id of its snapshot.
enter_part() {
    part=$1${2:+/$2} top_dir=$1/.git
    printf -v shown_part '%q' "$part"
    objects=$top_dir/objects git_dir=$top_dir
    ref=$(GIT_DIR=$top_dir plain_git rev-parse --verify --quiet "refs/banger/snapshot/$3") || ref=
    [[ -z $2 ]] || git_dir+=/modules/$3
    raw_index=$git_dir/banger/index
    if [[ -n $2 ]] && reaches_through_link "$1" "$2"; then
        refuse 1 "$shown_part is reached through a symbolic link"
    fi
    cd -- "$part" || exit 1
}

# $1: a directory, $2: a path below it.
reaches_through_link() {
    local below=$2 at=$1
    while [[ -n $below ]]; do
        at+=/${below%%/*}
        [[ ! -L $at ]] || return 0
        [[ $below == */* ]] || return 1
        below=${below#*/}
    done
    return 1
}

# $1: a path. Whether a directory above it is a link.
behind_link() {
    [[ $1 == */* ]] && reaches_through_link . "${1%/*}"
}

# Git on the part as bytes.
raw() {
    GIT_DIR=$git_dir/banger/raw GIT_WORK_TREE=$part GIT_INDEX_FILE=$raw_index \
        GIT_OBJECT_DIRECTORY=$objects GIT_CONFIG_GLOBAL=/dev/null GIT_CONFIG_NOSYSTEM=1 GIT_ATTR_NOSYSTEM=1 \
        plain_git -c core.protectNTFS=false -c core.protectHFS=false -c core.fileMode=true \
        -c core.symlinks=true -c core.autocrlf=false -c core.quotePath=true \
        -c core.excludesFile="$git_dir/info/exclude" "$@"
}

# Git on the part as the agent sees it.
own() {
    GIT_DIR=$git_dir GIT_WORK_TREE=$part plain_git -c core.protectNTFS=false -c core.protectHFS=false \
        -c core.quotePath=true "$@"
}

# $1: the name of something in the snapshot. Prints it, or nothing where it is not there.
told() {
    own cat-file blob "$ref:meta/$1" 2>/dev/null
}

# $1: "worktree" or "index". Prints the id of that tree, which may be empty.
tree_of() {
    own rev-parse --verify --quiet "$ref:$1" || own hash-object -t tree --stdin </dev/null
}

# $1: the part's path below the top, $2: its key, $3: object format. Makes what is missing of a
# submodule's git directory.
make_git_dir() {
    local up slashes
    [[ -f $git_dir/HEAD ]] || plain_git init --quiet --bare --template= --object-format="$3" -- "$git_dir" || exit 1
    mkdir -p -- "$git_dir/objects/info" || exit 1
    echo ../../../objects >"$git_dir/objects/info/alternates" || exit 1
    if [[ -f $objects/../shallow ]]; then
        cp -- "$objects/../shallow" "$git_dir/shallow" || exit 1
    else
        rm -f -- "$git_dir/shallow"
    fi
    own config core.bare false && own config core.worktree "../../../$1" || exit 1
    slashes=${1//[!\/]/}
    up=../${slashes//\//../}
    if [[ -d .git && ! -L .git ]]; then
        rm -rf -- .git || exit 1
    fi
    printf 'gitdir: %s.git/modules/%s\n' "$up" "$2" >.git.banger && mv -fT -- .git.banger .git || exit 1
}

make_raw() {
    local raw=$git_dir/banger/raw
    [[ ! -f $raw/info/attributes ]] || return 0
    mkdir -p -- "$git_dir/banger" "$git_dir/info" || exit 1
    plain_git init --quiet --bare --template= --object-format="$1" -- "$raw" &&
        mkdir -p -- "$raw/info" &&
        printf '* -text !eol !ident !filter !working-tree-encoding\n' >"$raw/info/attributes" || exit 1
}

# $1: the working copy's top, $2: a part's path below it, $3: its key. Refuses where the part's files can't
# be changed without loss.
still_careful() {
    local before
    enter_part "$1" "$2" "$3"
    before=$(<"$git_dir/banger/worktree") || exit 1
    # One that is no part any more goes as a whole.
    [[ -n $ref ]] || return 0
    raw read-tree -n -m -u "$before" "$(tree_of worktree)" ||
        refuse 3 "something changed in $shown_part while it was being prepared"
}

# $1: the part's path below the top, $2: its key, $3: object format, $4: "careful" where changes
# that were made since the last look must stop this, $5: a branch to start, or empty.
place() {
    local head branch worktree index before name settings=() at
    [[ -z $1 ]] || make_git_dir "$1" "$2" "$3"
    make_raw "$3"
    # Of one that was killed: there is one at a time.
    rm -f -- "$git_dir"/banger/{index,next}.lock "$git_dir/banger/next"
    head=$(own rev-parse --verify --quiet "$ref^") || refuse 1 "the snapshot of $shown_part is damaged"
    worktree=$(tree_of worktree) && index=$(tree_of index) || exit 1

    before=$(cat -- "$git_dir/banger/worktree" 2>/dev/null)
    if [[ $4 == careful && -n $before ]]; then
        raw read-tree -m -u "$before" "$worktree" ||
            refuse 1 "something changed in $shown_part while it was being written"
    else
        raw read-tree --reset -u "$worktree" || refuse 1 "the files of $shown_part could not be written"
        raw clean -ffdq </dev/null || refuse 1 "$shown_part could not be cleaned"
    fi
    printf '%s\n' "$worktree" >"$git_dir/banger/worktree" || exit 1

    # From the raw index come times and sizes, so that nothing need be read again.
    cp --preserve=timestamps -- "$git_dir/banger/index" "$git_dir/banger/next" || exit 1
    (
        export GIT_INDEX_FILE=$git_dir/banger/next GIT_LITERAL_PATHSPECS=1
        own read-tree --no-sparse-checkout --reset "$index" &&
            told conflicts | own update-index -z --index-info &&
            told skip-worktree | own update-index -z --skip-worktree --stdin &&
            told assume-unchanged | own update-index -z --assume-unchanged --stdin || exit 1
        announce
    ) || refuse 1 "the index of $shown_part could not be made"
    mv -fT -- "$git_dir/banger/next" "$git_dir/index" || exit 1

    while IFS= read -r -d '' name; do
        settings+=("$name")
    done < <(told settings)
    for ((at = 0; at + 1 < ${#settings[@]}; at += 2)); do
        own config -- "${settings[at]}" "${settings[at + 1]}" || exit 1
    done
    if own cat-file -e "$ref:meta/sparse-checkout" 2>/dev/null; then
        told sparse-checkout >"$git_dir/info/sparse-checkout" || exit 1
    fi

    place_refs "$2" "$4"
    branch=${5:-$(told branch)}
    if [[ -n $branch ]]; then
        own symbolic-ref HEAD "refs/heads/$branch" &&
            own update-ref --no-deref "refs/heads/$branch" "$head" || refuse 1 "the branch $branch could not be set in $shown_part"
    else
        own update-ref --no-deref HEAD "$head" || exit 1
    fi
    [[ -n $1 ]] || own update-ref refs/banger/base "$head" || exit 1
    # So that the next fetch knows what is here of each part.
    GIT_DIR=$top_dir plain_git update-ref "refs/banger/head/$2" "$head" || exit 1
    # What the agent had under way is over.
    (cd -- "$git_dir" && rm -rf -- MERGE_HEAD MERGE_MSG MERGE_MODE MERGE_RR AUTO_MERGE SQUASH_MSG CHERRY_PICK_HEAD \
        REVERT_HEAD REBASE_HEAD rebase-merge rebase-apply sequencer FETCH_HEAD index.lock)
    printf '%s\n' "$head" "$(index_id)" "$index" >"$git_dir/banger/state" || exit 1
}

# Marks paths in the index as announced, `git add --intent-to-add`. Git wants to see the files: those
# that are not there stand, empty, in a tree of their own.
announce() {
    local name here=$git_dir/banger/here elsewhere=$git_dir/banger/elsewhere tree=$git_dir/banger/tree
    : >"$here" && : >"$elsewhere" || return
    while IFS= read -r -d '' name; do
        # A link is a file here; what lies behind one is not.
        if [[ -L $name || -f $name ]] && ! behind_link "$name"; then
            printf '%s\0' "$name" >>"$here"
        else
            mkdir -p -- "$(dirname -- "$tree/$name")" && : >"$tree/$name" || return
            printf '%s\0' "$name" >>"$elsewhere"
        fi
    done < <(told intent-to-add)
    if [[ -s $here ]]; then
        own add --force --sparse --intent-to-add --pathspec-from-file="$here" --pathspec-file-nul || return
    fi
    if [[ -s $elsewhere ]]; then
        (
            part=$tree
            cd -- "$part" &&
                own add --force --sparse --intent-to-add --pathspec-from-file="$elsewhere" --pathspec-file-nul
        ) || return
    fi
    rm -rf -- "$here" "$elsewhere" "$tree"
}

# An id of what is staged.
index_id() {
    own ls-files --stage -z | own hash-object --stdin
}

# $1: the part's key, $2: "careful" where references that the agent moved stay. Brings the
# references of a full copy; those that the user has removed since go.
place_refs() {
    local id name list=$git_dir/banger/refs
    local -A before=() now=() next=()
    GIT_DIR=$top_dir plain_git for-each-ref --format='%(objectname) %(refname:lstrip=4)' \
        "refs/banger/from/$1/" >"$list.next" || exit 1
    if [[ -s $list.next || -s $list ]]; then
        while read -r id name; do
            before[$name]=$id
        done < <(cat -- "$list" 2>/dev/null)
        while read -r id name; do
            now[$name]=$id
        done < <(own for-each-ref --format='%(objectname) %(refname:lstrip=1)')
        while read -r id name; do
            next[$name]=$id
            if [[ ${now[$name]:-} != "$id" && ($2 != careful || ${now[$name]:-} == "${before[$name]:-}") ]]; then
                printf 'update refs/%s %s\n' "$name" "$id"
            fi
        done <"$list.next" >"$list.changes"
        for name in "${!before[@]}"; do
            if [[ -z ${next[$name]:-} && ${now[$name]:-} == "${before[$name]}" ]]; then
                printf 'delete refs/%s %s\n' "$name" "${now[$name]}"
            fi
        done >>"$list.changes"
        own update-ref --no-deref --stdin <"$list.changes" || refuse 1 "the references of $shown_part could not be set"
        rm -f -- "$list.changes"
    fi
    mv -fT -- "$list.next" "$list" || exit 1
}
