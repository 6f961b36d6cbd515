# shellcheck shell=bash disable=SC2154,SC2034
# Takes the whole working tree into an index of its own: committed, staged, unstaged and
# untracked, all as it lies there now. Objects that this makes go to a directory of its own too, and all
# of it is removed at the end. Needs repository.sh.

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
        done < <(plain_git ls-files --others --exclude-standard -z) >"$scratch/embedded"
        [[ $found == 1 ]] || return 0
        plain_git update-index --add --remove -z --stdin <"$scratch/embedded" >&2 ||
            refuse 1 "a repository inside $PWD cannot be read"
    done
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
    local objects index
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
    add_embedded
    # Nothing of this outlives the script: the disk need not have it. What git takes for a big file goes into
    # one pack, which is faster than a file for each.
    plain_git -c core.fsync=none -c core.bigFileThreshold=1 add --all --sparse -- . >&2 || refuse 1 "the working tree of $PWD cannot be read"
    tree=$(plain_git -c core.fsync=none write-tree) || refuse 1 "the working tree of $PWD cannot be written as a tree"
}
