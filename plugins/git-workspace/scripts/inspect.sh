# shellcheck shell=bash
# Tells of the working copy $1, compared with the base $2 or, where that is empty, with its head:
# prints a report, see compare.sh. Exit code 3: no working copy, or no such base.
enter_copy "$1"
resolve_base "$2"
take_snapshot
leave_copy
report
