# SPDX-License-Identifier: Apache-2.0
"""A client that sends whatever it is told, for what libnbd would never say. Numbers are the protocol's, in its names."""

import socket
import struct

NBDMAGIC = 0x4E42444D41474943
IHAVEOPT = 0x49484156454F5054
CLISERV_MAGIC = 0x00420281861253
REPLY_MAGIC = 0x3E889045565A9
REQUEST_MAGIC = 0x25609513
EXTENDED_REQUEST_MAGIC = 0x21E41C71
SIMPLE_REPLY_MAGIC = 0x67446698
STRUCTURED_REPLY_MAGIC = 0x668E33EF
EXTENDED_REPLY_MAGIC = 0x6E8A278C

FIXED_NEWSTYLE, NO_ZEROES = 1, 2

(EXPORT_NAME, ABORT, LIST, PEEK_EXPORT, STARTTLS, INFO, GO, STRUCTURED_REPLY, LIST_META_CONTEXT, SET_META_CONTEXT,
 EXTENDED_HEADERS) = range(1, 12)

ACK, SERVER, REP_INFO, META_CONTEXT = 1, 2, 3, 4
(ERR_UNSUP, ERR_POLICY, ERR_INVALID, ERR_PLATFORM, ERR_TLS_REQD, ERR_UNKNOWN, ERR_SHUTDOWN, ERR_BLOCK_SIZE_REQD,
 ERR_TOO_BIG, ERR_EXT_HEADER_REQD) = ((1 << 31) + number for number in range(1, 11))

INFO_EXPORT, INFO_NAME, INFO_DESCRIPTION, INFO_BLOCK_SIZE = range(4)

(HAS_FLAGS, READ_ONLY, SEND_FLUSH, SEND_FUA, ROTATIONAL, SEND_TRIM, SEND_WRITE_ZEROES, SEND_DF, CAN_MULTI_CONN,
 SEND_RESIZE, SEND_CACHE, SEND_FAST_ZERO, BLOCK_STATUS_PAYLOAD) = (1 << bit for bit in range(13))

READ, WRITE, DISC, FLUSH, TRIM, CACHE, WRITE_ZEROES, BLOCK_STATUS, RESIZE = range(9)
FUA, NO_HOLE, DF, REQ_ONE, FAST_ZERO, PAYLOAD_LEN = (1 << bit for bit in range(6))

DONE = 1
T_NONE, T_OFFSET_DATA, T_OFFSET_HOLE, T_BLOCK_STATUS, T_BLOCK_STATUS_EXT = 0, 1, 2, 5, 6
T_ERROR, T_ERROR_OFFSET = (1 << 15) + 1, (1 << 15) + 2

EPERM, EIO, ENOMEM, EINVAL, ENOSPC, EOVERFLOW, ENOTSUP, ESHUTDOWN = 1, 5, 12, 22, 28, 75, 95, 108

# A server that is silent for so long hangs.
SILENCE_SECS = 20


class Closed(Exception):
    """The server ended the connection."""


class Chunk:
    """A reply, or a piece of one. A simple reply is a piece with no type that ends its request."""

    def __init__(self, magic, flags, kind, cookie, offset, data):
        self.magic, self.flags, self.kind, self.cookie = magic, flags, kind, cookie
        self.offset, self.data = offset, data

    @property
    def error(self):
        """The number of the error, or 0."""
        if self.magic == SIMPLE_REPLY_MAGIC:
            return self.flags
        return struct.unpack_from(">I", self.data)[0] if self.kind & (1 << 15) else 0


class Raw:
    """A connection, from its first byte."""

    def __init__(self, address, client_flags=FIXED_NEWSTYLE | NO_ZEROES):
        family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET
        self.socket = socket.socket(family)
        self.socket.settimeout(SILENCE_SECS)
        self.socket.connect(address)
        self.magic, self.second_magic, self.handshake_flags = struct.unpack(">QQH", self.take(18))
        self.client_flags = client_flags
        self.send(struct.pack(">I", client_flags))
        self.extended = False
        self.info = {}

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    def send(self, data):
        try:
            self.socket.sendall(data)
        except (BrokenPipeError, ConnectionResetError) as error:
            raise Closed from error

    def take(self, count):
        parts = []
        while count > 0:
            try:
                part = self.socket.recv(min(count, 1 << 20))
            except ConnectionResetError as error:
                raise Closed from error
            if not part:
                raise Closed
            parts.append(part)
            count -= len(part)
        return b"".join(parts)

    def ended(self):
        """Whether the server has closed, with nothing further to say."""
        try:
            self.take(1)
        except Closed:
            return True
        return False

    # Negotiation

    def send_option(self, option, data=b"", magic=IHAVEOPT, length=None):
        self.send(struct.pack(">QII", magic, option, len(data) if length is None else length) + data)

    def option_reply(self):
        magic, option, kind, length = struct.unpack(">QIII", self.take(20))
        assert magic == REPLY_MAGIC, hex(magic)
        return option, kind, self.take(length)

    def option(self, option, data=b""):
        """Sends an option; returns all replies to it as (type, data), the final one last."""
        self.send_option(option, data)
        replies = []
        while True:
            answered, kind, data = self.option_reply()
            assert answered == option, (answered, option)
            replies.append((kind, data))
            if kind == ACK or kind & (1 << 31):
                return replies

    def verdict(self, option, data=b""):
        """The type of the final reply to an option."""
        return self.option(option, data)[-1][0]

    def go(self, name, wanted=(INFO_BLOCK_SIZE,), option=GO):
        """Chooses an export, or describes it; returns the type of the final reply, and keeps the facts."""
        replies = self.option(option, go_data(name, wanted))
        self.info = {struct.unpack_from(">H", data)[0]: data[2:] for kind, data in replies if kind == REP_INFO}
        return replies[-1][0]

    @property
    def size(self):
        return struct.unpack_from(">Q", self.info[INFO_EXPORT])[0]

    @property
    def flags(self):
        return struct.unpack_from(">H", self.info[INFO_EXPORT], 8)[0]

    def structured(self):
        assert self.verdict(STRUCTURED_REPLY) == ACK
        return self

    def extend(self):
        assert self.verdict(EXTENDED_HEADERS) == ACK
        self.extended = True
        return self

    def contexts(self, name, queries, option=SET_META_CONTEXT):
        """Chooses or lists contexts; returns the type of the final reply and {context: id}."""
        replies = self.option(option, context_data(name, queries))
        found = [(data[4:].decode(), struct.unpack_from(">I", data)[0]) for kind, data in replies if kind == META_CONTEXT]
        return replies[-1][0], dict(found)

    # Transmission

    def send_request(self, command, offset=0, length=0, flags=0, payload=b"", cookie=1, extended=None):
        if self.extended if extended is None else extended:
            head = struct.pack(">IHHQQQ", EXTENDED_REQUEST_MAGIC, flags, command, cookie, offset, length)
        else:
            head = struct.pack(">IHHQQI", REQUEST_MAGIC, flags, command, cookie, offset, length)
        self.send(head + payload)

    def chunk(self, read_length=0):
        """The next piece of a reply; `read_length` is what follows a successful simple one."""
        magic = struct.unpack(">I", self.take(4))[0]
        if magic == SIMPLE_REPLY_MAGIC:
            error, cookie = struct.unpack(">IQ", self.take(12))
            return Chunk(magic, error, None, cookie, None, b"" if error else self.take(read_length))
        if magic == STRUCTURED_REPLY_MAGIC:
            flags, kind, cookie, length = struct.unpack(">HHQI", self.take(16))
            return Chunk(magic, flags, kind, cookie, None, self.take(length))
        assert magic == EXTENDED_REPLY_MAGIC, hex(magic)
        flags, kind, cookie, offset, length = struct.unpack(">HHQQQ", self.take(28))
        return Chunk(magic, flags, kind, cookie, offset, self.take(length))

    def request(self, command, offset=0, length=0, flags=0, payload=b"", cookie=1):
        """Sends a request; returns all pieces of its reply."""
        self.send_request(command, offset, length, flags, payload, cookie)
        chunks = []
        while True:
            chunk = self.chunk(length if command == READ else 0)
            assert chunk.cookie == cookie, (chunk.cookie, cookie)
            chunks.append(chunk)
            if chunk.magic == SIMPLE_REPLY_MAGIC or chunk.flags & DONE:
                return chunks

    def error(self, *args, **more):
        """The number of the error that a request gets, or 0."""
        return max(chunk.error for chunk in self.request(*args, **more))

    def alive(self):
        """Whether the connection still serves."""
        return self.error(FLUSH, cookie=0xA11FE) == 0


def go_data(name, wanted=()):
    name = name.encode()
    return struct.pack(">I", len(name)) + name + struct.pack(f">H{len(wanted)}H", len(wanted), *wanted)


def context_data(name, queries):
    name = name.encode()
    data = struct.pack(">I", len(name)) + name + struct.pack(">I", len(queries))
    for query in queries:
        data += struct.pack(">I", len(query)) + query.encode()
    return data
