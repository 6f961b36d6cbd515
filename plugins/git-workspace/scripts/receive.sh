# shellcheck shell=bash disable=SC2154,SC2015
# Makes the working copy $1 equal to the user's snapshot $2. Stdin and stdout are connected to
# `git upload-pack`, which must speak protocol version 0 (GIT_PROTOCOL unset): with 2 it would wait for
# an end of file that it cannot get while git itself holds the descriptors. $3 object format; $4 depth,
# empty for everything, with all references; $5 a branch to start, or empty; $6 what it is a copy of; $7
# "overwrite" or "keep"; $8 the tree that was last exported, or empty. Exit code 3: something is at the
# path already that would be lost.
#
# A copy that is there is changed in place, once everything has arrived; anything else is made beside
# and renamed.
path=${1%/} snapshot=$2 format=$3 depth=$4 new_branch=$5 origin=$6 overwrite=$7 exported=$8
printf -v shown '%q' "$path"
exec 3<&0 4>&1 </dev/null >&2

occupied() {
    [[ -L $path ]] && return 0
    if [[ -d $path ]]; then
        local entry
        for entry in "$path"/* "$path"/.[!.]* "$path"/..?*; do
            [[ -e $entry || -L $entry ]] && return 0
        done
        return 1
    fi
    [[ -e $path ]]
}

# $1: a working copy. Sets `paths` and `keys` of its parts, the whole being the first.
read_parts() {
    local field fields=()
    paths=('') keys=(top)
    if [[ -f $1/.git/banger/parts ]]; then
        while IFS= read -r -d '' field; do
            fields+=("$field")
        done <"$1/.git/banger/parts"
    fi
    for ((at = 0; at + 1 < ${#fields[@]}; at += 2)); do
        paths+=("${fields[at]}") keys+=("${fields[at + 1]}")
    done
}

# $1: the file `shallow`, then commits. Adds them to it.
set_shallow() {
    [[ $# -gt 1 ]] || return 0
    {
        [[ ! -f $1 ]] || cat -- "$1"
        printf '%s\n' "${@:2}"
    } >"$1.banger" && mv -fT -- "$1.banger" "$1" || exit 1
}

# The reverse.
unset_shallow() {
    local line id kept=()
    [[ $# -gt 1 && -f $1 ]] || return 0
    while read -r line; do
        for id in "${@:2}"; do
            [[ $line != "$id" ]] || continue 2
        done
        kept+=("$line")
    done <"$1"
    if [[ ${#kept[@]} == 0 ]]; then
        rm -f -- "$1"
    else
        printf '%s\n' "${kept[@]}" >"$1.banger" && mv -fT -- "$1.banger" "$1" || exit 1
    fi
}

# $1: a working copy. Fetches the snapshot into it.
fetch() {
    local options=(--quiet --no-tags --prune --force --no-recurse-submodules --update-shallow --no-auto-maintenance
        --no-write-fetch-head)
    local refs=('+refs/snapshot/*:refs/banger/snapshot/*')
    if [[ -n $depth ]]; then
        options+=(--depth "$depth")
    else
        refs+=('+refs/parts/*:refs/banger/from/*')
    fi
    local known
    mapfile -t known < <(GIT_DIR=$1/.git plain_git for-each-ref --format='%(objectname)' refs/banger/snapshot/)
    # A copy that is called shallow at the last snapshot is not sent what lies in that snapshot: else git
    # looks at what a commit's ancestors hold, and this one is nobody's.
    set_shallow "$1/.git/shallow" "${known[@]}"
    if ! GIT_DIR=$1/.git plain_git -c protocol.fd.allow=always -c core.protectNTFS=false -c core.protectHFS=false \
        fetch "${options[@]}" fd::3,4 "${refs[@]}"; then
        unset_shallow "$1/.git/shallow" "${known[@]}"
        refuse 1 "the repository could not be fetched"
    fi
    unset_shallow "$1/.git/shallow" "${known[@]}"
    exec 3<&- 4>&-
    [[ $(GIT_DIR=$1/.git plain_git rev-parse --verify --quiet refs/banger/snapshot/top) == "$snapshot" ]] ||
        refuse 1 "what was fetched is not what was asked for"
    if [[ -n $new_branch && $overwrite != overwrite ]] &&
        GIT_DIR=$1/.git plain_git rev-parse --verify --quiet "refs/heads/$new_branch" >/dev/null &&
        [[ $(GIT_DIR=$1/.git plain_git symbolic-ref --quiet HEAD) != "refs/heads/$new_branch" ]]; then
        refuse 3 "there is a branch $new_branch in $shown already"
    fi
}

# $1: a working copy into which was fetched, $2: "careful" or "reset". Makes its tree what was fetched.
place_all() {
    local old_paths at known
    read_parts "$1"
    old_paths=("${paths[@]}")
    mkdir -p -- "$1/.git/banger" || exit 1
    # Until this is gone, the tree may be neither the old one nor the new one.
    printf '%s %s\n' "$snapshot" "$BASHPID" >"$1/.git/banger/applying" || exit 1
    GIT_DIR=$1/.git plain_git cat-file blob refs/banger/snapshot/top:meta/parts >"$1/.git/banger/parts" 2>/dev/null ||
        rm -f -- "$1/.git/banger/parts"
    read_parts "$1"
    for old in "${old_paths[@]:1}"; do
        known=
        for at in "${paths[@]}"; do
            [[ $at != "$old" ]] || known=1
        done
        if [[ -z $known ]] && ! reaches_through_link "$1" "$old"; then
            rm -rf -- "${1:?}/$old" || exit 1
        fi
    done
    for at in "${!paths[@]}"; do
        (
            mkdir -p -- "$1/${paths[at]}" || exit 1
            enter_part "$1" "${paths[at]}" "${keys[at]}"
            if [[ $at == 0 ]]; then
                place '' top "$format" "$2" "$new_branch"
            else
                place "${paths[at]}" "${keys[at]}" "$format" "$2" ''
            fi
        ) || exit
    done
    printf '%s\n' "$origin" >"$1/.git/banger/origin" && rm -f -- "$1/.git/banger/applying" || exit 1
}

# One that was cut off goes on to its end; a process of that number may also be another one.
wait_for_other() {
    local snapshot pid
    read -r snapshot pid 2>/dev/null <"$path/.git/banger/applying" || return 0
    if [[ $pid == *[0-9]* && $(tr '\0' ' ' <"/proc/$pid/cmdline" 2>/dev/null) == *banger*"$snapshot"* ]]; then
        timeout 600 tail --pid="$pid" -s 0.1 -f /dev/null ||
            refuse 3 "another prepare is still writing to $shown"
    fi
}

# Looks at the copy that is there: sets `how` to "careful" where it is as it was prepared, else to
# "reset"; refuses where work would be lost.
examine() {
    local at lost
    how=reset
    wait_for_other
    [[ ! -e $path/.git/banger/applying ]] || return 0
    scratch=$(mktemp -d) || exit 1
    read_parts "$path"
    for at in "${!paths[@]}"; do
        (unexported "$path" "${paths[at]}" "${keys[at]}")
    done >"$scratch/lost"
    if [[ ! -s $scratch/lost ]]; then
        how=careful
    elif [[ $overwrite != overwrite ]] && ! was_exported; then
        mapfile -t lost <"$scratch/lost"
        rm -rf -- "$scratch"
        refuse 3 "$(loss)"
    fi
    rm -rf -- "$scratch"
}

# Whether the whole tree is the one that was exported, and nothing in a submodule is at stake.
was_exported() {
    local now
    [[ -n $exported ]] || return 1
    local line
    while IFS= read -r line; do
        [[ -z ${line##*$'\t'} ]] || return 1
    done <"$scratch/lost"
    now=$(
        enter_copy "$path"
        take_snapshot
        plain_git write-tree
    ) 2>/dev/null || return 1
    [[ $now == "$exported" ]]
}

# A sentence on what would be lost: `lost` holds lines of kind, name and part, with tabs between.
loss() {
    local line kind name files=0 commits=0 names=() counts=()
    for line in "${lost[@]}"; do
        kind=${line%%$'\t'*} line=${line#*$'\t'}
        name=${line%%$'\t'*} line=${line#*$'\t'}
        [[ -z $line ]] || name="$line: $name"
        case $kind in
            commits) commits=$((commits + ${name##* })) ;;
            *)
                files=$((files + 1))
                [[ ${#names[@]} -ge 5 ]] || names+=("$name")
                ;;
        esac
    done
    [[ $files == 0 ]] || counts+=("$files changed file$([[ $files == 1 ]] || echo s)")
    [[ $commits == 0 ]] || counts+=("$commits commit$([[ $commits == 1 ]] || echo s)")
    printf 'work in %s was not exported: %s' "$shown" "${counts[0]}"
    [[ ${#counts[@]} -lt 2 ]] || printf ' and %s' "${counts[1]}"
    if [[ ${#names[@]} -gt 0 ]]; then
        printf ' (%s' "${names[0]}"
        [[ ${#names[@]} -lt 2 ]] || printf ', %s' "${names[@]:1}"
        [[ $files -le ${#names[@]} ]] || printf ' and %s more' $((files - ${#names[@]}))
        printf ')'
    fi
}

# What a script that was killed has left beside.
remove_left_over() {
    local left
    for left in "$path".banger-??????; do
        [[ -f $left/pid ]] || continue
        kill -0 "$(<"$left/pid")" 2>/dev/null || rm -rf -- "$left"
    done
}

place_beside() {
    mkdir -p -- "${path%/*}/" || exit 1
    remove_left_over
    new=$(mktemp -d -- "$path.banger-XXXXXX") || exit 1
    trap 'rm -rf -- "$new"' EXIT
    trap 'exit 129' HUP
    trap 'exit 143' TERM
    echo $$ >"$new/pid" || exit 1
    local copy=$new/repository
    plain_git init --quiet --template= --object-format="$format" --initial-branch=main -- "$copy" || exit 1
    # No reference of its own yet: a branch that the user has is not in the way.
    fetch "$copy"
    (place_all "$copy" reset) || exit
    cd / || exit 1

    # From here on only two renames are left: no signal may come between them.
    trap '' HUP INT TERM
    if occupied; then
        [[ $there != nothing ]] || refuse 3 "$shown is not empty any more"
        mv -T -- "$path" "$new/old" || refuse 1 "$shown could not be moved away"
        if ! mv -T -- "$copy" "$path"; then
            if ! mv -T -- "$new/old" "$path"; then
                trap - EXIT
                refuse 1 "$shown could not be replaced; what was there is $new/old now"
            fi
            refuse 1 "$shown could not be replaced"
        fi
    else
        mv -T -- "$copy" "$path" || refuse 1 "the working copy could not be moved to $shown"
    fi
}

# What has begun goes on to its end: in a process group of its own, deaf to signals.
place_here() {
    local at
    fetch "$path"
    if [[ $how == careful ]]; then
        # Much time may have passed since the last look.
        read_parts "$path"
        for at in "${!paths[@]}"; do
            (still_careful "$path" "${paths[at]}" "${keys[at]}") || exit
        done
    fi
    set -m
    (
        trap '' HUP INT TERM PIPE
        place_all "$path" "$how"
    ) &
    wait $! || exit
}

there=nothing how=reset
if occupied; then
    there=other
    if [[ ! -L $path && -d $path/.git && -f $path/.git/banger/origin ]]; then
        there=replaceable
        examine
        [[ $(<"$path/.git/banger/origin") != "$origin" ]] || there=same
        if [[ $there == replaceable && $overwrite != overwrite ]] && more_commits; then
            refuse 3 "$shown holds commits that are nowhere else, and another repository than this"
        fi
    elif [[ $overwrite != overwrite ]]; then
        refuse 3 "$shown exists already and is not empty"
    fi
fi
if [[ $there == same ]]; then
    place_here
else
    place_beside
fi
