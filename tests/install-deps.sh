#!/usr/bin/env bash
# Installs the programs that the tests run against. Without apt or root it names what is missing and fails:
# a test that silently did not run proves nothing.
set -euo pipefail

# A program, or a file, that proves each package, and the package.
needs=(
    sshd:openssh-server
    ssh:openssh-client
    fusermount3:fuse3
    getfattr:attr
    getfacl:acl
    git:git
    sqlite3:sqlite3
    rsync:rsync
    strace:strace
    ps:procps
    script:bsdutils
    ip:iproute2
    losetup:mount
    unshare:util-linux
    mkfs.ext4:e2fsprogs
    openssl:openssl
    su:util-linux
    setpriv:util-linux
    pamtester:pamtester
    automount:autofs
    dbus-daemon:dbus-daemon
    /lib/systemd/system/dbus.service:dbus
    dpkg-shlibdeps:dpkg-dev
    strip:binutils
    pam-auth-update:libpam-runtime
    systemd-analyze:systemd
    /usr/share/pam-configs/systemd:libpam-systemd
    pkaction:polkitd
    pivot_root:util-linux
    krb5kdc:krb5-kdc
    kadmin.local:krb5-admin-server
    kinit:krb5-user
    mkfs.xfs:xfsprogs
    xfs_io:xfsprogs
    mkfs.btrfs:btrfs-progs
    proftpd:proftpd-core
    /usr/lib/proftpd/mod_sftp.so:proftpd-mod-crypto
    rclone:rclone
    python3:python3
    /usr/lib/python3/dist-packages/paramiko/__init__.py:python3-paramiko
    /usr/lib/python3/dist-packages/asyncssh/__init__.py:python3-asyncssh
)

missing=()
for need in "${needs[@]}"; do
    proof=${need%%:*}
    [ -e "$proof" ] || PATH="$PATH:/usr/sbin:/sbin" command -v "$proof" >/dev/null || missing+=("${need##*:}")
done
if [ ${#missing[@]} -eq 0 ]; then
    exit 0
fi
if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null; then
    echo "install these packages first: ${missing[*]}" >&2
    exit 1
fi
apt-get update -qq
DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
