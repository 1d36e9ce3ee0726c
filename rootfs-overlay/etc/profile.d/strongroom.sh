# shellcheck shell=bash
# Completes `strongroom` in bash. What it needs is made at the first Tab: logging in is not to wait for it.
if [ -n "${BASH_VERSION-}" ]; then
	_strongroom_first() {
		eval "$(strongroom completions bash)" && return 124
	}
	complete -F _strongroom_first strongroom
fi
