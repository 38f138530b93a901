"""Vectors of 16 float32 for functions that numba compiles: one channel to a lane.

numba compiles scalar loops and leaves vectors to LLVM's guesses, which a possible overlap of two
arrays is enough to stop. Here a vector is a type of its own, which LLVM splits into whatever
registers the machine has: one of AVX-512, two of AVX2, four of NEON. Numbers in an expression
with vectors stand for vectors with that number in every lane.
"""

# mypy: disable-error-code="call-arg, var-annotated"
# (the first parameter of an intrinsic is numba's; callers do not pass it)

import operator

from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic, models, overload, register_model

LANES = 16
LOG2_E = 1.4426950408889634
LN_2 = 0.6931471805599453


class Lanes(types.Type):
    """A vector of 16 float32, one channel to a lane."""

    def __init__(self) -> None:
        super().__init__(name="Lanes")


lanes = Lanes()
_FLOATS = ir.VectorType(ir.FloatType(), LANES)
_INTS = ir.VectorType(ir.IntType(32), LANES)


@register_model(Lanes)
class _LanesModel(models.PrimitiveModel):
    def __init__(self, dmm, fe_type):
        super().__init__(dmm, fe_type, _FLOATS)


def _vector(builder, value, kind):
    """A scalar as a vector with the same value in every lane; a vector as it is."""
    if kind == lanes:
        return value
    if kind != types.float32:
        value = builder.fptrunc(value, ir.FloatType())
    first = builder.insert_element(ir.Constant(_FLOATS, ir.Undefined), value, ir.IntType(32)(0))
    return builder.shuffle_vector(first, first, ir.Constant(_INTS, [0] * LANES))


def _arithmetic(operation, instruction):
    @intrinsic
    def emit(typing, a, b):
        def code(context, builder, signature, args):
            a, b = (_vector(builder, *pair) for pair in zip(args, signature.args, strict=True))
            # `contract` joins a multiplication and an addition into one instruction
            return getattr(builder, instruction)(a, b, flags=("contract",))

        return lanes(a, b), code

    @overload(operation, inline="always")
    def choose(a, b):
        if lanes in (a, b):
            return lambda a, b: emit(a, b)


_arithmetic(operator.add, "fadd")
_arithmetic(operator.sub, "fsub")
_arithmetic(operator.mul, "fmul")
_arithmetic(operator.truediv, "fdiv")


def _call(builder, name, result, *args):
    kind = ir.FunctionType(result, [arg.type for arg in args])
    return builder.call(cgutils.get_or_insert_function(builder.module, kind, name), args)


@intrinsic
def larger(typing, a, b):
    """The larger of a vector and a number, lane by lane."""

    def code(context, builder, signature, args):
        a, b = (_vector(builder, *pair) for pair in zip(args, signature.args, strict=True))
        return builder.select(builder.fcmp_ordered(">", a, b), a, b)

    return lanes(a, b), code


@intrinsic
def magnitude(typing, a):
    def code(context, builder, signature, args):
        return _call(builder, "llvm.fabs.v16f32", _FLOATS, *args)

    return lanes(a), code


@intrinsic
def where_positive(typing, condition, a, b):
    """a in the lanes where the condition is above 0, b in the others."""

    def code(context, builder, signature, args):
        condition, a, b = (
            _vector(builder, *pair) for pair in zip(args, signature.args, strict=True)
        )
        zero = _vector(builder, ir.FloatType()(0.0), types.float32)
        return builder.select(builder.fcmp_ordered(">", condition, zero), a, b)

    return lanes(condition, a, b), code


@intrinsic
def total(typing, a):
    """The sum of the 16 lanes, pairwise."""

    def code(context, builder, signature, args):
        (value,) = args
        width = LANES
        while width > 1:
            width //= 2
            low, high = list(range(width)), list(range(width, 2 * width))
            take = ir.VectorType(ir.IntType(32), width)
            low, high = ir.Constant(take, low), ir.Constant(take, high)
            low = builder.shuffle_vector(value, value, low)
            high = builder.shuffle_vector(value, value, high)
            value = builder.fadd(low, high)
        return builder.extract_element(value, ir.IntType(32)(0))

    return types.float32(a), code


@intrinsic
def two_to(typing, a):
    """2**n for lanes that hold n + `_ROUND`: the low bits of such a number are n + 127."""

    def code(context, builder, signature, args):
        bits = builder.shl(builder.bitcast(args[0], _INTS), ir.Constant(_INTS, [23] * LANES))
        return builder.bitcast(bits, _FLOATS)

    return lanes(a), code


def _address(context, builder, array, value, index):
    """The address of array[index], which the callers keep inside the array."""
    indices = cgutils.unpack_tuple(builder, index)
    array_value = context.make_array(array)(context, builder, value)
    return cgutils.get_item_pointer(
        context, builder, array, array_value, indices, wraparound=False, boundscheck=False
    )


@intrinsic
def load(typing, array, index):
    """The 16 values from array[index] on, along its last axis."""

    def code(context, builder, signature, args):
        address = _address(context, builder, array, args[0], args[1])
        value = builder.load(builder.bitcast(address, _FLOATS.as_pointer()))
        value.align = 4
        return value

    return lanes(array, index), code


@intrinsic
def store(typing, array, index, vector):
    """array[index] and the 15 values after it = vector."""

    def code(context, builder, signature, args):
        address = _address(context, builder, array, args[0], args[1])
        target = builder.bitcast(address, _FLOATS.as_pointer())
        value = _vector(builder, args[2], vector)
        builder.store(value, target).align = 4
        return context.get_dummy_value()

    return types.none(array, index, vector), code


@intrinsic
def prefetch(typing, array, index):
    """Ask for the cache line of array[index], to be read soon."""

    def code(context, builder, signature, args):
        address = _address(context, builder, array, args[0], args[1])
        address = builder.bitcast(address, ir.IntType(8).as_pointer())
        read, everywhere, data = (ir.IntType(32)(number) for number in (0, 3, 1))
        _call(builder, "llvm.prefetch.p0", ir.VoidType(), address, read, everywhere, data)
        return context.get_dummy_value()

    return types.none(array, index), code


# ---- Functions of vectors -----------------------------------------------------------------------

_ROUND = 1.5 * 2**23 + 127  # adding it rounds to an integer and leaves that in the low bits


@njit
def exp2(x):
    """2**x for x <= 127, relative error below 1e-7; 2**-126 for less."""
    x = larger(x, -126.0)
    rounded = x + _ROUND
    r = x - (rounded - _ROUND)  # -0.5..0.5
    p = r * 0.00015353361959569156 + 0.0013398875016719103
    p = p * r + 0.00961843691766262
    p = p * r + 0.055503323674201965
    p = p * r + 0.24022647738456726
    p = p * r + 0.6931471824645996
    p = p * r + 1.0
    return p * two_to(rounded)


@njit
def exp(x):
    """e**x for x <= 88, within 2 units of the last place; about 1e-38 for less than -87."""
    x = larger(x, -87.0)
    rounded = x * LOG2_E + _ROUND
    n = rounded - _ROUND
    r = (x - n * 0.693145751953125) - n * 1.42860682030941723212e-6  # ln 2, its high and low part
    p = r * 0.0013843653723597527 + 0.00837415549904108
    p = p * r + 0.04166800156235695
    p = p * r + 0.16666431725025177
    p = p * r + 0.4999999403953552
    p = p * r + 1.0
    p = p * r + 1.0
    return p * two_to(rounded)


@njit
def softplus(x):
    """(log(1 + e**x), its derivative): softplus and the logistic function."""
    z = exp(magnitude(x) * -1.0)  # 0..1
    p = z * 0.005364818498492241 + -0.03006576932966709
    p = p * z + 0.0792044997215271
    p = p * z + -0.13753798604011536
    p = p * z + 0.1915365308523178
    p = p * z + -0.24857163429260254
    p = p * z + 0.3332132399082184
    p = p * z + -0.49999648332595825
    p = p * z + 1.0
    low = z / (z + 1.0)  # the logistic function of -|x|
    return larger(x, 0.0) + z * p, where_positive(x, 1.0 - low, low)
