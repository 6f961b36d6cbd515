# shellcheck shell=bash
# Whether $1 can be a working directory. Exit codes: 0 yes, 10 it does not exist, 11 it is no
# directory, 12 it cannot be entered.
set -u
[[ -e $1 ]] || exit 10
[[ -d $1 ]] || exit 11
{ cd -- "$1"; } 2>/dev/null || exit 12
