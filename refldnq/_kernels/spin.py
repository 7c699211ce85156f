"""Waiting for another thread without falling asleep, which the interpreter lock is released for."""

from __future__ import annotations

from typing import Any

from numba import njit, types
from numba.extending import intrinsic
from numba.np import arrayobj

make_array: Any = arrayobj.make_array


def _typed_load(typingctx: Any, word: Any) -> tuple[Any, Any]:
    # word[0], read anew every time: an ordinary read would be taken out of the loop.
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        array = make_array(signature.args[0])(context, builder, arguments[0])
        return builder.load_atomic(array.data, "acquire", 8)

    return types.int64(word), generate


_load: Any = intrinsic(_typed_load)


@njit(nogil=True, fastmath=False)
def spin(word, value, patience, courtesy):  # type: ignore[no-untyped-def]
    """Look at ``word[0]`` until it reaches `value`, at most `patience` times; whether it did.

    Then look `courtesy` times more: the thread that wrote it holds the interpreter lock for another moment,
    and who asks for a lock that is held is put to sleep.
    """
    for _ in range(patience):
        if _load(word) >= value:
            for _ in range(courtesy):
                _load(word)
            return True
    return False
