#!/usr/bin/env bash
# The checks of `make lint`, each named as it runs; the first that fails ends it.
set -euo pipefail
step() { printf '\033[1m%s\033[0m\n' "lint: $1"; shift; "$@"; }
breaking() {
  # Against main: what callers may already rely on. In a clone whose main is this commit, against its parent.
  local base
  base=$(git rev-parse --verify --quiet origin/main || git rev-parse --verify --quiet main || true)
  [ -n "$base" ] && [ "$base" != "$(git rev-parse HEAD)" ] || base=$(git rev-parse --verify --quiet HEAD~1 || true)
  if [ -z "$base" ] || [ -z "$(git ls-tree --name-only "$base" -- buf.yaml)" ]; then
    echo "no earlier contracts to compare with"
    return
  fi
  local before found=0
  before=$(mktemp -d)
  git archive "$base" buf.yaml protos | tar -x -C "$before"
  buf breaking --against "$before" || found=$?
  rm -rf "$before"
  return "$found"
}
step "ruff check" ruff check .
step "ruff format" ruff format --check --quiet .
step "mypy --strict" mypy
step "import-linter" lint-imports --no-logo
step "buf lint" buf lint
step "buf format" buf format --diff --exit-code
step "buf breaking" breaking
step "generated code is current" python deploy/gen/generate.py --check
