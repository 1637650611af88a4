#!/usr/bin/env bash
# The tests start a PostgreSQL of their own where none answers; where its programs are missing, Debian's are installed.
set -euo pipefail
shopt -s nullglob

programs=(/usr/lib/postgresql/*/bin/initdb)
if ((${#programs[@]})) || command -v initdb >/dev/null || [[ -n ${VITPRESS_TEST_POSTGRES:-} ]]; then
    exit 0
fi
if ! command -v apt-get >/dev/null; then
    echo "the tests need PostgreSQL: install its server programs, or set VITPRESS_TEST_POSTGRES to a server's URL" >&2
    exit 1
fi
root=()
((EUID == 0)) || root=(sudo)
"${root[@]}" apt-get update --quiet=2
DEBIAN_FRONTEND=noninteractive "${root[@]}" apt-get install --quiet=2 --yes --no-install-recommends postgresql >/dev/null
