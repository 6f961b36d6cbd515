# shellcheck shell=bash
# What every script for a working copy begins with. What the agent has put into its configuration
# or environment must not change what a command here does or prints.
set -u

# $1: an exit code, $2: a sentence for a person.
refuse() {
    printf '%s\n' "$2" >&2
    exit "$1"
}

for variable in "${!GIT_@}"; do
    unset "$variable"
done
unset variable
export GIT_TERMINAL_PROMPT=0 GIT_LFS_SKIP_SMUDGE=1 GIT_OPTIONAL_LOCKS=0 LC_ALL=C

# Git without hooks, background work, or content fetched from elsewhere. It compresses fast rather than
# well: a guest may be slow, and nothing is kept of what is made for a patch.
plain_git() {
    git -c safe.directory='*' -c core.hooksPath=/dev/null -c core.fsmonitor=false \
        -c core.compression=1 -c gc.auto=0 -c maintenance.auto=false -c core.safecrlf=false \
        -c filter.lfs.smudge= -c filter.lfs.clean= -c filter.lfs.process= -c filter.lfs.required=false \
        -c advice.addEmbeddedRepo=false -c submodule.recurse=false "$@"
}
