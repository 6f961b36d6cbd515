# shellcheck shell=bash disable=SC2154,SC2034,SC2030,SC2031
# Takes the whole working tree into an index of its own: committed, staged, unstaged and
# untracked, all as it lies there now. Objects that this makes go to a directory of its own too, and all
# of it is removed at the end. Needs repository.sh.

# What the agent has set for git must not hide modes, links or changes, nor leave anything in its own directory.
as_it_lies=(-c core.fileMode=true -c core.symlinks=true -c core.ignoreCase=false -c core.trustctime=true
    -c core.checkStat=default -c core.splitIndex=false -c core.untrackedCache=false)

# $1: the working copy. Enters it; sets `head`, empty where there is no commit yet.
enter_copy() {
    cd -- "$1" 2>/dev/null || refuse 3 "there is no directory $1"
    local top
    top=$(plain_git rev-parse --show-toplevel 2>/dev/null && printf x) || refuse 3 "$1 holds no git working copy"
    cd -- "${top%$'\n'x}" || exit 1
    head=$(plain_git rev-parse --quiet --verify 'HEAD^{commit}') || head=
}

# Adds the files of repositories that were made inside the working copy, as if these were plain
# directories. Git itself would note a commit that nobody else has, or refuse to go on.
add_embedded() {
    local found name file
    # Each round finds what lies one level deeper.
    for _ in {1..16}; do
        found=0
        while IFS= read -r -d '' name; do
            [[ $name == */ ]] || continue
            while IFS= read -r -d '' file; do
                printf '%s%s\0' "$name" "$file"
                found=1
            done < <(embedded_files "$name")
        done < <(plain_git ls-files --others --exclude-standard -z | grep -z '/$') >"$scratch/embedded"
        [[ $found == 1 ]] || break
        plain_git "${as_it_lies[@]}" update-index --add --remove -z --stdin <"$scratch/embedded" >&2 ||
            refuse 1 "a repository inside $PWD cannot be read"
    done
    # Of one without a commit and without files there is nothing to add, and git would not go on.
    while IFS= read -r -d '' name; do
        [[ $name == */ ]] || continue
        (
            unset GIT_INDEX_FILE GIT_OBJECT_DIRECTORY GIT_ALTERNATE_OBJECT_DIRECTORIES
            plain_git -C "./$name" rev-parse --quiet --verify HEAD >/dev/null 2>&1
        ) || left_out+=(":(top,exclude,literal)${name%/}")
    done < <(plain_git ls-files --others --exclude-standard -z | grep -z '/$')
}

# Entries at which git does not look, since the user has said so of the repository: the agent may have
# changed the files all the same. Those that are as they were prepared stay as they are.
look_at_changed() {
    local git_dir
    plain_git ls-files -v -z | grep -z '^[a-zS] ' | cut -z -c 3- | sort -z >"$scratch/flagged"
    [[ -s $scratch/flagged ]] || return 0
    git_dir=$(plain_git rev-parse --absolute-git-dir && printf x) || exit 1
    git_dir=${git_dir%$'\n'x}
    # What banger did not put there is only as it is.
    [[ -f $git_dir/banger/index && -d $git_dir/banger/raw ]] || return 0
    cp --preserve=timestamps -- "$git_dir/banger/index" "$scratch/raw" || exit 1
    (
        export GIT_DIR=$git_dir/banger/raw GIT_WORK_TREE=$PWD GIT_INDEX_FILE=$scratch/raw
        plain_git "${as_it_lies[@]}" update-index -q --refresh >/dev/null
        plain_git "${as_it_lies[@]}" -c core.autocrlf=false diff-files --name-only --ignore-submodules=all -z
    ) | sort -z | comm -z -12 -- "$scratch/flagged" - >"$scratch/changed"
    # The last of such options counts: one command for each.
    plain_git "${as_it_lies[@]}" update-index --no-skip-worktree -z --stdin <"$scratch/changed" >&2 &&
        plain_git "${as_it_lies[@]}" update-index --no-assume-unchanged -z --stdin <"$scratch/changed" >&2 || exit 1
}

# $1: a directory that holds a repository. Prints its files, without those of repositories below.
embedded_files() (
    unset GIT_INDEX_FILE GIT_OBJECT_DIRECTORY GIT_ALTERNATE_OBJECT_DIRECTORIES
    cd -- "./$1" || exit
    plain_git ls-files --cached --others --exclude-standard -z |
        while IFS= read -r -d '' file; do
            [[ $file == */ || ! (-f $file || -L $file) ]] || printf '%s\0' "$file"
        done
)

# Makes the index, and lets git use it from here on. Sets `tree` to the id of the whole snapshot.
take_snapshot() {
    local objects index left_out=()
    objects=$(plain_git rev-parse --path-format=absolute --git-path objects && printf x) || exit 1
    objects=${objects%$'\n'x}
    index=$(plain_git rev-parse --path-format=absolute --git-path index && printf x) || exit 1
    index=${index%$'\n'x}

    scratch=$(mktemp -d) || exit 1
    trap 'rm -rf -- "$scratch"' EXIT
    trap 'exit 129' HUP
    trap 'exit 130' INT
    trap 'exit 143' TERM
    mkdir -- "$scratch/objects"
    # With git's knowledge of which files are unchanged; without, all would be read again. Its time is
    # part of that: a file as old as the index may have changed since, within the same second.
    if [[ -f $index ]]; then
        cp --preserve=timestamps -- "$index" "$scratch/index" || exit 1
    fi
    # In this variable some characters have a meaning.
    if [[ $objects == *[:\"\\]* ]]; then
        ln -s -- "$objects" "$scratch/alternate"
        objects=$scratch/alternate
    fi
    export GIT_INDEX_FILE=$scratch/index GIT_OBJECT_DIRECTORY=$scratch/objects GIT_ALTERNATE_OBJECT_DIRECTORIES=$objects
    look_at_changed
    add_embedded
    # Nothing of this outlives the script: the disk need not have it. What git takes for a big file goes into
    # one pack, which is faster than a file for each.
    plain_git "${as_it_lies[@]}" -c core.fsync=none -c core.bigFileThreshold=1 add --all --sparse -- . "${left_out[@]}" >&2 || refuse 1 "the working tree of $PWD cannot be read"
    tree=$(plain_git "${as_it_lies[@]}" -c core.fsync=none write-tree) || refuse 1 "the working tree of $PWD cannot be written as a tree"
}
