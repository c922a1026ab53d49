"""Compressed streams: records both ways, flushed at the end of each burst of writes.

What is written within one turn of the event loop goes out together at its end, or at once when it
fills a record: interactive traffic waits for nothing.
"""

from __future__ import annotations

import asyncio

from underpass.links.layers import Compression
from underpass.links.stream import Stream, StreamReset
from underpass.links.wrapped import WrappedStream
from underpass.wire.compression import BadRecord, Codec, Decoder, Encoder
from underpass.wire.pieces import Buffer

__all__ = ["compressed"]


def compressed(stream: Stream, compression: Compression) -> Stream:
    """*stream* with its bytes compressed; both ends must call the same.

    ``"none"`` gives *stream* itself. A record that is damaged, claims more than it may, or is cut
    off by the end, ends the stream with a StreamReset, code ``bad_compression``.
    """
    return stream if compression == "none" else CompressedStream(stream, compression)


class CompressedStream(WrappedStream):
    """See :func:`compressed`."""

    def __init__(self, inner: Stream, codec: Codec) -> None:
        super().__init__(inner)
        self._encoder = Encoder(codec)
        self._decoder = Decoder(codec)
        self._loop = asyncio.get_running_loop()
        self._scheduled = False
        self._start()

    # -- in -----------------------------------------------------------------------------------

    def _take_in(self, chunk: Buffer) -> None:
        self._decoder.feed(chunk)

    def _next_piece(self) -> Buffer | None:
        try:
            return self._decoder.next()
        except BadRecord as error:
            raise _reset(error) from None

    def _settle(self) -> None:
        self._decoder.keep()

    def _check_end(self) -> None:
        try:
            self._decoder.finish()
        except BadRecord as error:
            raise _reset(error) from None

    # -- out ----------------------------------------------------------------------------------

    def send(self, data: Buffer) -> None:
        if not (self.closed or self._finished) and data:
            self.bytes_out += len(data)
            for buffer in self._encoder.put(data):
                self._inner.send(buffer)
            if self._encoder.waiting and not self._scheduled:
                self._scheduled = True
                self._loop.call_soon(self._burst_over)

    def _burst_over(self) -> None:
        self._scheduled = False
        if not (self.closed or self._finished):
            self._flush()

    def _flush(self) -> None:
        for buffer in self._encoder.flush():
            self._inner.send(buffer)

    def _end_output(self) -> None:
        self._flush()
        self._inner.finish()


def _reset(error: BadRecord) -> StreamReset:
    return StreamReset(error.message, code=error.code)
