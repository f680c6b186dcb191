"""Serves a directory over SFTP with paramiko, for the tests: PORT HOST_KEY AUTHORIZED_KEY ROOT."""

import os
import socket
import sys
import threading

import paramiko
from paramiko import SFTP_OK, SFTPAttributes, SFTPHandle, SFTPServer


class Login(paramiko.ServerInterface):
    def __init__(self, key):
        self.key = key

    def check_auth_publickey(self, username, key):
        known = key.get_base64() == self.key
        return paramiko.AUTH_SUCCESSFUL if known else paramiko.AUTH_FAILED

    def check_channel_request(self, kind, chanid):
        return paramiko.OPEN_SUCCEEDED

    def get_allowed_auths(self, username):
        return "publickey"


def told(act):
    """Runs what may fail; paramiko turns errno into a status."""
    try:
        result = act()
    except OSError as error:
        return SFTPServer.convert_errno(error.errno)
    return SFTP_OK if result is None else result


class Handle(SFTPHandle):
    def stat(self):
        return told(lambda: SFTPAttributes.from_stat(os.fstat(self.file.fileno())))

    def chattr(self, attr):
        return told(lambda: SFTPServer.set_file_attr(self.path, attr))


class Files(paramiko.SFTPServerInterface):
    root = None

    def at(self, path):
        return self.root + self.canonicalize(path)

    def list_folder(self, path):
        path = self.at(path)

        def act():
            entries = []
            for name in os.listdir(path):
                attr = SFTPAttributes.from_stat(os.lstat(os.path.join(path, name)))
                attr.filename = name
                entries.append(attr)
            return entries

        return told(act)

    def stat(self, path):
        return told(lambda: SFTPAttributes.from_stat(os.stat(self.at(path))))

    def lstat(self, path):
        return told(lambda: SFTPAttributes.from_stat(os.lstat(self.at(path))))

    def open(self, path, flags, attr):
        path = self.at(path)

        def act():
            mode = attr.st_mode if attr.st_mode is not None else 0o666
            fd = os.open(path, flags, mode & 0o7777)
            kind = "rb" if flags & os.O_ACCMODE == os.O_RDONLY else "r+b"
            if flags & os.O_ACCMODE == os.O_WRONLY:
                kind = "wb"
            file = os.fdopen(fd, kind)
            handle = Handle(flags)
            handle.path = path
            handle.file = file
            handle.filename = path
            if "r" in kind:
                handle.readfile = file
            if kind != "rb":
                handle.writefile = file
            return handle

        return told(act)

    def remove(self, path):
        return told(lambda: os.remove(self.at(path)))

    def rename(self, old, new):
        old, new = self.at(old), self.at(new)
        if os.path.lexists(new):
            return paramiko.SFTP_FAILURE
        return told(lambda: os.rename(old, new))

    def posix_rename(self, old, new):
        return told(lambda: os.replace(self.at(old), self.at(new)))

    def mkdir(self, path, attr):
        mode = attr.st_mode if attr.st_mode is not None else 0o777
        return told(lambda: os.mkdir(self.at(path), mode & 0o7777))

    def rmdir(self, path):
        return told(lambda: os.rmdir(self.at(path)))

    def chattr(self, path, attr):
        return told(lambda: SFTPServer.set_file_attr(self.at(path), attr))

    def symlink(self, target, path):
        return told(lambda: os.symlink(target, self.at(path)))

    def readlink(self, path):
        return told(lambda: os.readlink(self.at(path)))


def serve(connection, host_key, key):
    transport = paramiko.Transport(connection)
    transport.add_server_key(host_key)
    transport.set_subsystem_handler("sftp", SFTPServer, Files)
    transport.start_server(server=Login(key))
    # A channel that nobody holds is closed.
    channels = []
    while transport.is_active():
        channels.append(transport.accept(1))


def main():
    port, host_key, authorized, Files.root = sys.argv[1:]
    os.umask(0)
    host_key = paramiko.RSAKey.from_private_key_file(host_key)
    with open(authorized, encoding="utf-8") as file:
        key = file.read().split()[1]
    listener = socket.create_server(("127.0.0.1", int(port)))
    while True:
        connection, _ = listener.accept()
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        threading.Thread(target=serve, args=(connection, host_key, key), daemon=True).start()


main()
