#!/usr/bin/env bash
# Builds the Debian packages and looks at them from outside:
#
#   unpack   always: each is unpacked into an empty folder, its programs run from there, its list of files, owners and
#            modes, its pages and its completions are looked at
#   root     with debootstrap, as root: all are installed into a fresh Debian, run, and removed again
#   boot     with systemd-nspawn too: that Debian is booted, and its own systemd starts the coordinator and an enrolled
#            agent, with every restriction of their units
#
# What cannot be done here is named as skipped. With --no-package the packages are taken as they are in
# target/debian; other arguments go to package.sh. NIGHTSHIFT_SUITE is the Debian, bookworm by
# default. Takes as long as a release build, and two minutes.
set -euo pipefail
cd "$(dirname "$0")/.."
umask 022

target=$(realpath -m "${CARGO_TARGET_DIR:-target}")
suite=${NIGHTSHIFT_SUITE:-bookworm}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

step() { printf '\n== %s\n' "$*"; }
skip() { printf 'skipped: %s\n' "$*"; }
fail() {
    printf 'check-packages.sh: %s\n' "$*" >&2
    exit 1
}

step package
if [ "${1:-}" = --no-package ]; then
    skip "building the packages: those in $target/debian are taken as they are"
else
    deploy/package.sh "$@"
fi
debs=("$target"/debian/nightshift-{agent,coordinator,authority,operator}_*.deb)

# Every file that a package must have, with its mode.
expected() {
    case $1 in
    nightshift-agent | nightshift-coordinator | nightshift-authority)
        local sample=${1#nightshift-}.toml
        cat <<END
-rwxr-xr-x ./usr/bin/$1
-rw-r--r-- ./etc/nightshift/$sample
-rw-r--r-- ./usr/lib/systemd/system/$1.service
-rw-r--r-- ./usr/lib/sysusers.d/$1.conf
-rw-r--r-- ./usr/lib/tmpfiles.d/$1.conf
END
        ;;
    nightshift-operator) echo '-rwxr-xr-x ./usr/bin/nightshift' ;;
    esac
    local program=$1
    [ "$program" = nightshift-operator ] && program=nightshift
    cat <<END
-rw-r--r-- ./usr/share/man/man1/$program.1.gz
-rw-r--r-- ./usr/share/bash-completion/completions/$program
-rw-r--r-- ./usr/share/zsh/vendor-completions/_$program
-rw-r--r-- ./usr/share/fish/vendor_completions.d/$program.fish
-rw-r--r-- ./usr/share/doc/$1/copyright
-rw-r--r-- ./usr/share/doc/$1/changelog.gz
-rw-r--r-- ./usr/share/doc/$1/changelog.Debian.gz
END
    if [ "$1" = nightshift-agent ]; then echo '-rw-r--r-- ./usr/lib/systemd/user/nightshift-agent.service'; fi
}

for deb in "${debs[@]}"; do
    name=$(dpkg-deb -f "$deb" Package)
    step "unpack $name $(dpkg-deb -f "$deb" Version)"
    # Owners are numbers in the archive: 0/0 is root/root.
    contents=$(dpkg-deb -c "$deb" | awk '{sub("root/root", "0/0", $2); print $1, $6, $2}')
    expected "$name" | while read -r line; do
        grep -qxF -- "$line 0/0" <<<"$contents" || fail "$name lacks: $line, root's"
    done
    if grep -v ' 0/0$' <<<"$contents"; then fail "$name has files of another owner"; fi
    if awk '$1 ~ /^.(..s|.....s|.......w)/' <<<"$contents" | grep .; then
        fail "$name has files that take on rights or that all may write"
    fi
    folder=$work/$name
    dpkg-deb -x "$deb" "$folder"
    dpkg-deb -e "$deb" "$folder/DEBIAN"
    grep -q Expat "$folder/usr/share/doc/$name/copyright" || fail "$name has another copyright file than ours"
    for script in "$folder"/DEBIAN/{pre,post}{inst,rm}; do
        [ ! -e "$script" ] || sh -n "$script" || fail "$script is no shell script"
    done
    for program in "$folder"/usr/bin/*; do
        "$program" --version
        "$program" --help >/dev/null
    done
    if [ "$name" = nightshift-agent ]; then
        "$folder/usr/bin/nightshift-agent" --config "$folder/etc/nightshift/agent.toml" conditions
        install_root=$work/installed
        "$folder/usr/bin/nightshift-agent" service install --system --root "$install_root" >/dev/null
        diff <(grep -v ^ExecStart= "$install_root/etc/systemd/system/nightshift-agent.service") \
            <(grep -v ^ExecStart= "$folder/usr/lib/systemd/system/nightshift-agent.service") ||
            fail "what the program installs is not what its package does"
    fi
    if command -v man >/dev/null; then
        for page in "$folder"/usr/share/man/man1/*.1.gz; do
            said=$(MANROFFSEQ='' MANWIDTH=100 man --warnings -E UTF-8 -l -Tutf8 -Z "$page" 2>&1 >/dev/null || true)
            [ -z "$said" ] || fail "${page##*/}: $said"
        done
        echo "$(find "$folder/usr/share/man/man1" -type f | wc -l) manual pages"
    else
        skip "manual pages: there is no man"
    fi
    for shell in bash:usr/share/bash-completion zsh:usr/share/zsh fish:usr/share/fish; do
        files=$(find "$folder/${shell#*:}" -type f)
        if ! command -v "${shell%%:*}" >/dev/null; then
            skip "completions of ${shell%%:*}: there is none"
            continue
        fi
        for file in $files; do "${shell%%:*}" -n "$file" || fail "$file is not understood"; done
    done
    if command -v systemd-analyze >/dev/null; then
        for unit in "$folder"/usr/lib/systemd/system/*.service; do
            [ -e "$unit" ] || continue
            systemd-analyze security --offline=true --threshold=20 --no-pager "$unit" | tail -n 1
        done
    else
        skip "exposure of units: there is no systemd-analyze"
    fi
    if command -v lintian >/dev/null; then
        lintian --fail-on error "$deb" || fail "lintian finds errors in $name"
    else
        skip "lintian: it is not installed"
    fi
done

step root
if ! command -v debootstrap >/dev/null; then
    skip "installing into a fresh $suite: there is no debootstrap (apt-get install debootstrap)"
    exit 0
elif [ "$(id -u)" != 0 ]; then
    skip "installing into a fresh $suite: debootstrap needs root"
    exit 0
fi
root=$work/root
debootstrap --variant=minbase --include=systemd,systemd-sysv,dbus "$suite" "$root" >"$work/debootstrap.log" ||
    fail "debootstrap: $(tail -n 3 "$work/debootstrap.log")"
echo '127.0.0.1 localhost' >"$root/etc/hosts"
cp "${debs[@]}" "$root/tmp/"
inside() { chroot "$root" env PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C "$@"; }
inside sh -c 'apt-get install -y --no-install-recommends /tmp/nightshift-*.deb' >"$work/install.log" 2>&1 ||
    fail "they do not install: $(tail -n 5 "$work/install.log")"
inside nightshift-agent --version
inside nightshift-coordinator --version
inside nightshift-authority --version
inside nightshift --version
inside nightshift-agent --config /etc/nightshift/agent.toml conditions
for daemon in nightshift-agent nightshift-coordinator nightshift-authority; do
    inside id "$daemon"
    said=$(inside systemd-analyze verify --man=no "$daemon.service" 2>&1 | grep nightshift || true)
    [ -z "$said" ] || fail "$said"
    [ ! -e "$root/etc/systemd/system/multi-user.target.wants/$daemon.service" ] ||
        fail "$daemon starts before anybody has said what it is to do"
done

step boot
boot() {
    systemd-nspawn --quiet --register=no --keep-unit --private-network -D "$root" "$@"
}
if ! command -v systemd-nspawn >/dev/null; then
    skip "starting the services: there is no systemd-nspawn (apt-get install systemd-container)"
elif ! boot true 2>"$work/nspawn.log"; then
    skip "starting the services: systemd-nspawn cannot run here: $(tail -n 1 "$work/nspawn.log")"
elif [ ! -x "$target/release/nightshift-sim" ]; then
    skip "starting the services: no nightshift-sim in $target/release, which writes a base to train"
else
    "$target/release/nightshift-sim" make-data --out "$work/trial" --devices 2 >/dev/null
    cp -r "$work/trial/base" "$root/var/lib/nightshift-base"
    mkdir -p "$root/home/alex/notes"
    # The home is closed, the folder in it that was named is not.
    chmod 700 "$root/home/alex"
    cp "$work"/trial/users/000-*.jsonl "$root/home/alex/notes/a.jsonl"
    cp deploy/check-boot.sh "$root/usr/local/sbin/"
    cat >"$root/etc/systemd/system/check.service" <<END
[Service]
Type=oneshot
ExecStart=/bin/bash /usr/local/sbin/check-boot.sh
ExecStopPost=/bin/systemctl poweroff --force
StandardOutput=file:/var/log/check.log
StandardError=inherit
TimeoutStartSec=180
[Install]
WantedBy=multi-user.target
END
    inside systemctl enable --quiet check.service
    timeout 240 systemd-nspawn --quiet --register=no --keep-unit --private-network --boot -D "$root" \
        </dev/null >"$work/boot.log" 2>&1 || true
    cat "$root/var/log/check.log" || fail "it did not boot: $(tail -n 5 "$work/boot.log")"
    grep -qx 'all services ran' "$root/var/log/check.log" || fail "a service did not run as it should"
fi

step remove
inside apt-get purge -y nightshift-agent nightshift-coordinator nightshift-authority nightshift-operator >"$work/purge.log" 2>&1 ||
    fail "they are not removed: $(tail -n 5 "$work/purge.log")"
left=$(find "$root/usr/bin" "$root/usr/lib/systemd" "$root/etc/nightshift" -name 'nightshift*' 2>/dev/null || true)
[ -z "$left" ] || fail "left behind: $left"
[ -d "$root/var/lib/nightshift-agent" ] && echo "left as it is: /var/lib/nightshift-agent" || true
