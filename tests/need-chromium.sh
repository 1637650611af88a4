#!/usr/bin/env bash
# The pages are tested in a real Chromium; where there is none, Debian's is installed.
set -euo pipefail

if command -v chromium >/dev/null || command -v chromium-browser >/dev/null || command -v google-chrome >/dev/null || [[ -n ${VITPRESS_TEST_CHROMIUM:-} ]]; then
    exit 0
fi
if ! command -v apt-get >/dev/null; then
    echo "the tests need Chromium: install it, or set VITPRESS_TEST_CHROMIUM to its program" >&2
    exit 1
fi
root=()
((EUID == 0)) || root=(sudo)
"${root[@]}" apt-get update --quiet=2
DEBIAN_FRONTEND=noninteractive "${root[@]}" apt-get install --quiet=2 --yes --no-install-recommends chromium >/dev/null
