#!/bin/sh
# Make .venv/litellm-proxy: LiteLLM's proxy, which `make bench` compares with, in an environment of its own.
# Run from the top of the checkout, after environment.sh. Safe to interrupt, to repeat, and to run twice at once.
set -eu

place=.venv/litellm-proxy
export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1

say() { printf '%s\n' "$*" >&2; }

pin='litellm[proxy]==1.106.2'

exec 8<.venv
if ! flock -n 8; then
    say "Another make prepares .venv; waiting for it"
    flock 8
fi
[ "$(cat "$place/pin" 2>/dev/null)" = "$pin" ] && exit 0
say "Installing $pin into $place"
if ! { .venv/bin/python -m venv --clear "$place" && "$place/bin/python" -m pip install "$pin"; } \
    >.venv/litellm.log 2>&1 </dev/null; then
    tail -n 60 .venv/litellm.log >&2
    say "error: cannot install $pin; the lines above are the end of .venv/litellm.log"
    exit 1
fi
printf '%s\n' "$pin" >"$place/pin"
