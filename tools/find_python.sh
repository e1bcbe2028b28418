#!/bin/sh
# Prints the name of a Python 3.10 to 3.13 that can make virtual environments.
# PYTHON names one; otherwise python3 is taken if it fits, or the newest that does.

fits() {
    "$1" -c 'import sys, venv, ensurepip
sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null
}

candidates=${PYTHON:-"python3 python3.13 python3.12 python3.11 python3.10 python"}
for python in $candidates; do
    if fits "$python"; then
        echo "$python"
        exit 0
    fi
done

# pyenv keeps interpreters that are not on PATH.
if [ -z "$PYTHON" ]; then
    for version in 3.13 3.12 3.11 3.10; do
        for python in "${PYENV_ROOT:-$HOME/.pyenv}"/versions/$version.*/bin/python; do
            if fits "$python"; then
                echo "$python"
                exit 0
            fi
        done
    done
fi

echo "No suitable Python found. Expected Python 3.10, 3.11, 3.12 or 3.13 with its venv" >&2
echo "and ensurepip modules (on Debian: the package python3-venv). Looked for:" >&2
for python in $candidates; do
    echo "  $python: $("$python" --version 2>&1 | head -n 1)" >&2
done
echo "Install one, or name it: make PYTHON=/path/to/python" >&2
exit 1
