# shellcheck shell=bash
# Which commands cannot be run from the working directory $1: a name is looked for in PATH, and what
# holds a slash is a path. Prints the number of each missing one, from 0, on a line of its own, and
# exits with 10 where there are any.
set -u
# Where it cannot be entered, the check of the working directory tells.
cd -- "$1" 2>/dev/null || cd /
shift
number=0 missing=0
for name in "$@"; do
    if [[ $name == */* ]]; then
        [[ -f $name && -x $name ]]
    else
        type -P -- "$name" >/dev/null
    fi || {
        printf '%s\n' "$number"
        missing=1
    }
    number=$((number + 1))
done
[[ $missing -eq 0 ]] || exit 10
