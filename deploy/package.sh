#!/usr/bin/env bash
# Builds the Debian packages: the programs, their manual pages and completions, then one package for each of the agent,
# the coordinator, the enrollment authority and the operator's program, in target/debian. Needs what building needs, and cargo-deb 3.8.0:
#
#     cargo install cargo-deb --version 3.8.0 --locked
#
# With --no-build the programs are taken as they are in target/release.
set -euo pipefail
cd "$(dirname "$0")/.."
umask 022

build=yes
for argument in "$@"; do
    case $argument in
    --no-build) build=no ;;
    *)
        echo "package.sh: $argument is not known; --no-build is" >&2
        exit 2
        ;;
    esac
done
if ! cargo deb --version >/dev/null 2>&1; then
    echo "package.sh: there is no cargo-deb: cargo install cargo-deb --version 3.8.0 --locked" >&2
    exit 1
fi

# The same commit gives the same packages.
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct)}
export SOURCE_DATE_EPOCH
target=${CARGO_TARGET_DIR:-target}

programs=(-p nightshift-agent -p nightshift-coordinator -p nightshift-authority -p nightshift-operator
    -p nightshift-docs)
if [ "$build" = yes ]; then
    cargo build --release --locked --bins "${programs[@]}"
fi

rm -rf "$target/release/docs"
"$target/release/nightshift-docs" "$target/release/docs"
gzip -9n "$target"/release/docs/*/man/*.1

version=$("$target/release/nightshift-agent" --version | cut -d' ' -f2)
date=$(LC_ALL=C date -u -R -d "@$SOURCE_DATE_EPOCH")
gzip -9n >"$target/release/docs/changelog.Debian.gz" <<END
nightshift ($version-1) unstable; urgency=medium

  * Version $version; the changes are in changelog.gz.

 -- Nightshift developers <developers@nightshift.invalid>  $date
END

mkdir -p "$target/debian"
rm -f "$target"/debian/nightshift-*.deb
for package in nightshift-agent nightshift-coordinator nightshift-authority nightshift-operator; do
    cargo deb --quiet --no-build --locked -p "$package" --output "$target/debian/"
done
ls -l "$target"/debian/*.deb
