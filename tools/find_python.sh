#!/bin/sh
# Prints the name of a Python 3.11 to 3.13 that can make virtual environments.
# PYTHON names one; otherwise python3 is taken if it fits, or the newest that does.

fits() {
    "$1" -c 'import sys, venv, ensurepip
sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null
}

version_of() {
    if command -v "$1" >/dev/null; then
        # One of pyenv's commands that does not run says so in several lines.
        "$1" --version 2>&1 | { read -r line; echo "$line"; }
    else
        echo "not found"
    fi
}

if [ -n "$PYTHON" ]; then
    set -- "$PYTHON"
else
    set -- python3 python3.13 python3.12 python3.11 python python3.14
    # pyenv keeps interpreters that are not on PATH.
    for version in 3.13 3.12 3.11 3.14; do
        for python in "${PYENV_ROOT:-$HOME/.pyenv}"/versions/$version.*/bin/python; do
            if [ -x "$python" ]; then
                set -- "$@" "$python"
            fi
        done
    done
fi

for python; do
    if fits "$python"; then
        echo "$python"
        exit 0
    fi
done

{
    echo "No suitable Python found. Expected Python 3.11, 3.12 or 3.13 with its venv"
    echo "and ensurepip modules (on Debian: the package python3-venv). Looked for:"
    too_new=
    for python; do
        version=$(version_of "$python")
        echo "  $python: $version"
        case $version in "Python 3.1"[4-9]*) too_new=yes ;; esac
    done
    if [ -n "$too_new" ]; then
        echo "TensorFlow 2.21, which is needed, has no wheels for Python 3.14 or newer."
    fi
    echo "Install one, or name it: make PYTHON=/path/to/python"
} >&2
exit 1
