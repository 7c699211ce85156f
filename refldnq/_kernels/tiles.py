"""Register tiles: the inner loops of the direct convolution, emitted as vector instructions.

Numba keeps an array of sums in memory; here it is rows x vectors of registers. Two tiles add
``scalar[r] * vector[v]`` at every step of a loop, in the loop's order; they differ in which operand lies in
the order of the steps and which one is looked up in a table of positions. The third transposes a square.
All arrays are contiguous, those of numbers of one type. Nothing is checked: the caller keeps every position,
and the vector behind it, inside its array.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba.core.cgutils
import numba.extending
from llvmlite import binding, ir
from numba import types

cgutils: Any = numba.core.cgutils
intrinsic: Any = numba.extending.intrinsic

WIDTH, VECTORS = (64, 4) if binding.get_host_cpu_features().get("avx512f") else (32, 2)
"""Bytes of a vector, and vectors of `weighted`: its sums fill half of the 32 or 16 vector registers."""

OUTPUTS, ENTRIES = 4, 8
"""Rows of `weighted` and of `correlated`: 8 sums at least, which hides an addition's latency."""

_Operands = Callable[[Any], tuple[list[Any], list[Any]]]
"""The addresses of a step's scalars and vectors."""


class _Emitter:
    """Writes instructions for vectors of the numbers that the first array holds."""

    def __init__(self, context: Any, builder: Any, signature: Any, args: Any) -> None:
        self.builder = builder
        dtype = signature.args[0].dtype
        self.size = dtype.bitwidth // 8
        self.lanes = WIDTH // self.size
        self.vector = ir.VectorType(context.get_data_type(dtype), self.lanes)
        self.undefined = ir.Constant(self.vector, ir.Undefined)
        self.values, self.lengths = [], []
        for kind, arg in zip(signature.args, args, strict=True):
            if isinstance(kind, types.Array):
                array = context.make_array(kind)(context, builder, arg)
                self.values.append(array.data)
                self.lengths.append(cgutils.unpack_tuple(builder, array.shape)[0])
            else:
                self.values.append(arg)
                self.lengths.append(None)

    def at(self, pointer: Any, *indices: Any) -> Any:
        """The address of the element whose index is the sum of `indices`."""
        for index in indices:
            index = ir.IntType(64)(index) if isinstance(index, int) else index
            pointer = self.builder.gep(pointer, [index])
        return pointer

    def times(self, a: Any, b: int) -> Any:
        return self.builder.mul(a, a.type(b))

    def load(self, address: Any) -> Any:
        return self.builder.load(self.builder.bitcast(address, self.vector.as_pointer()), align=self.size)

    def store(self, vector: Any, address: Any) -> None:
        pointer = self.builder.bitcast(address, self.vector.as_pointer())
        self.builder.store(vector, pointer, align=self.size)

    def shuffle(self, a: Any, b: Any, order: list[int]) -> Any:
        """The elements of `a` followed by those of `b`, in this order."""
        mask = ir.Constant(ir.VectorType(ir.IntType(32), self.lanes), order)
        return self.builder.shuffle_vector(a, b, mask)

    def repeat(self, address: Any) -> Any:
        """A vector of one scalar."""
        scalar = self.builder.insert_element(self.undefined, self.builder.load(address), ir.IntType(32)(0))
        return self.shuffle(scalar, self.undefined, [0] * self.lanes)

    def multiply_and_add(self, count: Any, operands: _Operands, rows: list[Any], vectors: int) -> list[Any]:
        """For every row's first vector and every v: it plus, over step < `count`, scalar r times vector v."""
        builder = self.builder
        name = f"llvm.fmuladd.v{self.lanes}f{8 * self.size}"
        signature = ir.FunctionType(self.vector, [self.vector] * 3)
        fmuladd = cgutils.get_or_insert_function(builder.module, signature, name)
        # Variables on the stack, which LLVM moves to registers.
        sums = [cgutils.alloca_once_value(builder, first) for first in rows for _ in range(vectors)]
        with cgutils.for_range(builder, count) as loop:
            at_scalars, at_vectors = operands(loop.index)
            loaded = [self.load(address) for address in at_vectors]
            pairs = [(self.repeat(address), vector) for address in at_scalars for vector in loaded]
            for pair, total in zip(pairs, sums, strict=True):
                builder.store(builder.call(fmuladd, [*pair, builder.load(total)]), total)
        return [builder.load(total) for total in sums]


@intrinsic
def weighted(typing, x, offsets, starts, t, weights, block, bias, o, out, pitch, places):  # type: ignore[no-untyped-def]
    """OUTPUTS outputs, o and those after it, at VECTORS vectors of positions, t and those after it.

    ``out[pitch o + places[t] + lane] = bias[o] + sum_k w[k, o] x[offsets[k] + starts[t] + lane]``, where
    ``weights[block:]`` holds w[k, o], w[k, o + 1], ... one entry k after the other.
    """

    def generate(context, builder, signature, args):  # type: ignore[no-untyped-def]
        emit = _Emitter(context, builder, signature, args)
        x, offsets, starts, t, weights, block, bias, o, out, pitch, places = emit.values
        begins = [emit.at(x, builder.load(emit.at(starts, t, v))) for v in range(VECTORS)]

        def operands(step: Any) -> tuple[list[Any], list[Any]]:
            row = emit.at(weights, block, emit.times(step, OUTPUTS))
            offset = builder.load(emit.at(offsets, step))
            return [emit.at(row, r) for r in range(OUTPUTS)], [emit.at(p, offset) for p in begins]

        firsts = [emit.repeat(emit.at(bias, o, r)) for r in range(OUTPUTS)]
        sums = iter(emit.multiply_and_add(emit.lengths[1], operands, firsts, VECTORS))
        ends = [builder.load(emit.at(places, t, v)) for v in range(VECTORS)]
        for r in range(OUTPUTS):
            row = emit.at(out, builder.mul(pitch, builder.add(o, o.type(r))))
            for place in ends:
                emit.store(next(sums), emit.at(row, place))
        return context.get_dummy_value()

    return types.void(x, offsets, starts, t, weights, block, bias, o, out, pitch, places), generate


@intrinsic
def correlated(typing, x, offsets, k, positions, columns, first, pitch, out):  # type: ignore[no-untyped-def]
    """ENTRIES entries of a patch, k and those after it: their sums of products with vectors of `columns`.

    ``out[r, lane] = sum_p x[offsets[k + r] + positions[p]] columns[first + pitch p + lane]``.
    """

    def generate(context, builder, signature, args):  # type: ignore[no-untyped-def]
        emit = _Emitter(context, builder, signature, args)
        x, offsets, k, positions, columns, first, pitch, out = emit.values
        begins = [emit.at(x, builder.load(emit.at(offsets, k, r))) for r in range(ENTRIES)]

        def operands(step: Any) -> tuple[list[Any], list[Any]]:
            position = builder.load(emit.at(positions, step))
            vector = emit.at(columns, first, builder.mul(step, pitch))
            return [emit.at(p, position) for p in begins], [vector]

        zeros = [ir.Constant(emit.vector, None)] * ENTRIES
        for r, total in enumerate(emit.multiply_and_add(emit.lengths[3], operands, zeros, 1)):
            emit.store(total, emit.at(out, r * emit.lanes))
        return context.get_dummy_value()

    return types.void(x, offsets, k, positions, columns, first, pitch, out), generate


@intrinsic
def transposed(typing, rows, first, step, out, place, pitch):  # type: ignore[no-untyped-def]
    """``out[place + pitch p + r] = rows[first + step r + p]`` for r and p below the lanes of a vector."""

    def generate(context, builder, signature, args):  # type: ignore[no-untyped-def]
        emit = _Emitter(context, builder, signature, args)
        rows, first, step, out, place, pitch = emit.values
        vectors = [emit.load(emit.at(rows, first, emit.times(step, r))) for r in range(emit.lanes)]
        # Vectors i and i + half become 2 i and 2 i + 1, their elements alternating. Done log2(lanes) times,
        # this rotates the bits of (vector, element) until the two have changed places.
        half = emit.lanes // 2
        alternating = [i + other for i in range(emit.lanes) for other in (0, emit.lanes)]
        for _ in range(half.bit_length()):
            vectors = [
                emit.shuffle(vectors[i], vectors[i + half], order)
                for i in range(half)
                for order in (alternating[: emit.lanes], alternating[emit.lanes :])
            ]
        for p, vector in enumerate(vectors):
            emit.store(vector, emit.at(out, place, emit.times(pitch, p)))
        return context.get_dummy_value()

    return types.void(rows, first, step, out, place, pitch), generate
