#!/usr/bin/env bash
# The tests run real servers, and a real browser: programs that are missing are installed from Debian.
set -euo pipefail
shopt -s nullglob

has() { command -v "$1" >/dev/null; }

missing=()
postgresql=(/usr/lib/postgresql/*/bin/initdb)
((${#postgresql[@]})) || has initdb || [[ -n ${VITPRESS_TEST_POSTGRES:-} ]] || missing+=(postgresql)
has rabbitmq-server || [[ -x /usr/lib/rabbitmq/bin/rabbitmq-server || -n ${VITPRESS_TEST_RABBITMQ:-} ]] || missing+=(rabbitmq-server)
has chromium || has chromium-browser || has google-chrome || [[ -n ${VITPRESS_TEST_CHROMIUM:-} ]] || missing+=(chromium)
has nginx || [[ -x /usr/sbin/nginx ]] || missing+=(nginx-light)
has wrk || missing+=(wrk)

((${#missing[@]})) || exit 0
if ! has apt-get; then
    echo "the tests need ${missing[*]}: install them; tests/services.py says by which variables servers of yours are used" >&2
    exit 1
fi
root=()
((EUID == 0)) || root=(sudo)
"${root[@]}" apt-get update --quiet=2
DEBIAN_FRONTEND=noninteractive "${root[@]}" apt-get install --quiet=2 --yes --no-install-recommends "${missing[@]}" >/dev/null
