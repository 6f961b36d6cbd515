# shellcheck shell=bash
# Prints one patch from the base $2 to everything in the working tree of $1. Exit code 3: no
# working copy, or no such base.
enter_copy "$1"
resolve_base "$2"
take_snapshot
compare --binary --full-index --src-prefix=a/ --dst-prefix=b/ --unified=3 --inter-hunk-context=0 --diff-algorithm=myers
