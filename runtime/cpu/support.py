"""Functions that LLVM calls where the CPU lacks an instruction, as IR text.

Narrowing to half precision and bfloat16 and widening from half: a compiler's own run-time library
has them, but that library is not part of a Python process on every system. All of them round to
nearest, ties to even; LLVM compiles one only when linked code asks for it.
"""

from __future__ import annotations

__all__ = ["SUPPORT_IR"]

# f64 goes to f32 rounded to odd, which keeps the information that the second rounding needs.
_TO_ODD = """
define internal float @to_odd(double %x) alwaysinline {
  %near = fptrunc double %x to float
  %back = fpext float %near to double
  %inexact = fcmp one double %back, %x
  %size = call double @llvm.fabs.f64(double %x)
  %near.size = call double @llvm.fabs.f64(double %back)
  %above = fcmp ogt double %near.size, %size
  %bits = bitcast float %near to i32
  %step = zext i1 %above to i32
  %down = sub i32 %bits, %step
  %odd = or i32 %down, 1
  %chosen = select i1 %inexact, i32 %odd, i32 %bits
  %result = bitcast i32 %chosen to float
  ret float %result
}
declare double @llvm.fabs.f64(double)
"""

# Below 2^-14 the addition of 0.5 lets the adder do the rounding; above, the integer carry does.
_HALF = """
define internal half @narrow(float %x) alwaysinline {
  %bits = bitcast float %x to i32
  %high = lshr i32 %bits, 16
  %sign = and i32 %high, 32768
  %size = and i32 %bits, 2147483647
  %size.float = bitcast i32 %size to float
  %shifted = fadd float %size.float, 5.0e-01
  %shifted.bits = bitcast float %shifted to i32
  %small = sub i32 %shifted.bits, 1056964608
  %last = lshr i32 %size, 13
  %odd = and i32 %last, 1
  %rebased = add i32 %size, -939520001
  %rounded = add i32 %rebased, %odd
  %normal = lshr i32 %rounded, 13
  %is.small = icmp ult i32 %size, 947912704
  %finite = select i1 %is.small, i32 %small, i32 %normal
  %payload = and i32 %last, 1023
  %nan = or i32 %payload, 32256
  %is.nan = icmp ugt i32 %size, 2139095040
  %special = select i1 %is.nan, i32 %nan, i32 31744
  %is.special = icmp uge i32 %size, 1199566848
  %value = select i1 %is.special, i32 %special, i32 %finite
  %all = or i32 %value, %sign
  %short = trunc i32 %all to i16
  %result = bitcast i16 %short to half
  ret half %result
}
define half @__truncsfhf2(float %x) {
  %r = call half @narrow(float %x)
  ret half %r
}
define half @__truncdfhf2(double %x) {
  %f = call float @to_odd(double %x)
  %r = call half @narrow(float %f)
  ret half %r
}
define float @__extendhfsf2(half %x) {
  %short = bitcast half %x to i16
  %bits = zext i16 %short to i32
  %sign = and i32 %bits, 32768
  %sign.high = shl i32 %sign, 16
  %size = and i32 %bits, 32767
  %moved = shl i32 %size, 13
  %exponent = and i32 %moved, 260046848
  %rebased = add i32 %moved, 939524096
  %special = add i32 %rebased, 939524096
  %is.special = icmp eq i32 %exponent, 260046848
  %normal = select i1 %is.special, i32 %special, i32 %rebased
  %lifted = add i32 %rebased, 8388608
  %lifted.float = bitcast i32 %lifted to float
  %tiny = fsub float %lifted.float, 0x3F10000000000000
  %tiny.bits = bitcast float %tiny to i32
  %is.tiny = icmp eq i32 %exponent, 0
  %value = select i1 %is.tiny, i32 %tiny.bits, i32 %normal
  %all = or i32 %value, %sign.high
  %result = bitcast i32 %all to float
  ret float %result
}
"""

_BFLOAT = """
define internal bfloat @narrow.b(float %x) alwaysinline {
  %bits = bitcast float %x to i32
  %high = lshr i32 %bits, 16
  %odd = and i32 %high, 1
  %bias = add i32 %odd, 32767
  %sum = add i32 %bits, %bias
  %rounded = lshr i32 %sum, 16
  %quiet = or i32 %high, 64
  %is.nan = fcmp uno float %x, 0.0
  %all = select i1 %is.nan, i32 %quiet, i32 %rounded
  %short = trunc i32 %all to i16
  %result = bitcast i16 %short to bfloat
  ret bfloat %result
}
define bfloat @__truncsfbf2(float %x) {
  %r = call bfloat @narrow.b(float %x)
  ret bfloat %r
}
define bfloat @__truncdfbf2(double %x) {
  %f = call float @to_odd(double %x)
  %r = call bfloat @narrow.b(float %f)
  ret bfloat %r
}
"""

SUPPORT_IR = _TO_ODD + _HALF + _BFLOAT
