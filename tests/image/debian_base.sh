#!/bin/sh
# Writes the tar file $1: a base for the image, made of Debian's packages, where no registry of images can be reached.
# It has what the image takes from python:3.13-slim: Debian of this machine's release, its Python as `python`, no compiler.
set -eu
packages=ca-certificates,libstdc++6,passwd,python3-venv
case $(. /etc/os-release && echo "$VERSION_CODENAME") in
	bookworm) suite=bookworm merged='--include=usr-is-merged --hook-dir=/usr/share/mmdebstrap/hooks/merged-usr' ;; # else it takes Perl
	*) suite=$(. /etc/os-release && echo "$VERSION_CODENAME") merged= ;;
esac
# shellcheck disable=SC2086 # two options or none
exec mmdebstrap --quiet --variant=essential --include="$packages" $merged \
	--dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/info/*' \
	--dpkgopt='path-exclude=/usr/share/locale/*' --dpkgopt='path-exclude=/usr/share/man/*' \
	--customize-hook='ln -s python3 "$1/usr/bin/python"' "$suite" "$1"
