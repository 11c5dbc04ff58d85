"""What every generated CUDA text begins with: types, 16-byte accesses, exact integer and float
helpers, reductions and scans over lanes and blocks.

It needs no header, so NVRTC compiles it alone. `GNN_WIDE` makes indices 64 bits wide, for programs
with a buffer of 2^30 elements or more. `GNN_EMULATED` is set by the tests that run the text on the
host; they bring what the device compiler builds in.
"""

from __future__ import annotations

_TYPES = r"""
typedef signed char i8;
typedef unsigned char u8;
typedef short i16;
typedef unsigned short u16;
typedef int i32;
typedef unsigned int u32;
typedef long long i64;
typedef unsigned long long u64;
#ifdef GNN_WIDE
typedef i64 idx;
#else
typedef int idx;
#endif
#ifndef GNN_EMULATED
#define DEVICE __device__ __forceinline__
#define DYNAMIC_SHARED(name) extern __shared__ __align__(16) unsigned char name[]
#endif

// ---- 16-bit floats: storage only, arithmetic is float -----------------------------------------
struct f16 { u16 bits; };
struct bf16 { u16 bits; };

template <class To, class From> DEVICE To bitcast(From x) {
  static_assert(sizeof(To) == sizeof(From), "bitcast keeps the width");
  union { From from; To to; } both;
  both.from = x;
  return both.to;
}
template <class T> DEVICE T wide(T x) { return x; }
template <class T> struct As { static DEVICE T of(T x) { return x; } };
DEVICE float wide(bf16 x) { return bitcast<float>((u32)x.bits << 16); }
#ifdef GNN_EMULATED
DEVICE float wide(f16 x) { return gnn_half_to_float(x.bits); }
template <> struct As<f16> { static DEVICE f16 of(float x) { return f16{gnn_float_to_half(x)}; } };
#else
DEVICE float wide(f16 x) {
  float y;
  asm("cvt.f32.f16 %0, %1;" : "=f"(y) : "h"(x.bits));
  return y;
}
template <> struct As<f16> {
  static DEVICE f16 of(float x) {
    f16 y;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(y.bits) : "f"(x));
    return y;
  }
};
#endif
template <> struct As<bf16> {
  static DEVICE bf16 of(float x) {  // to nearest, ties to even; NaN stays NaN
    bf16 y;
#if !defined(GNN_EMULATED) && __CUDA_ARCH__ >= 800
    asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(y.bits) : "f"(x));
#else
    const u32 bits = bitcast<u32>(x);
    const u32 rounded = (bits + 32767u + ((bits >> 16) & 1u)) >> 16;
    y.bits = (u16)(x != x ? (bits >> 16) | 64u : rounded);
#endif
    return y;
  }
};

// A float rounded to 16 bits and back.
template <class T> DEVICE float rounded(float x) { return wide(As<T>::of(x)); }
#if !defined(GNN_EMULATED) && __CUDA_ARCH__ >= 800
template <> DEVICE float rounded<bf16>(float x) {  // the upper half of a pair is a float already
  u32 y;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(y) : "f"(x), "f"(0.0f));
  return bitcast<float>(y);
}
#endif

// ---- several neighbours at once -----------------------------------------------------------------
template <class T, int N> struct alignas(sizeof(T) * N < 16 ? sizeof(T) * N : 16) Pack { T at[N]; };
#ifdef GNN_EMULATED
template <int N, class T> Pack<T, N> load_pack(const T* p) { return gnn_load<Pack<T, N>>(p); }
template <int N, class T> void store_pack(T* p, const Pack<T, N>& pack) { gnn_store(p, pack); }
#else
template <int N, class T> DEVICE Pack<T, N> load_pack(const T* p) {
  return *reinterpret_cast<const Pack<T, N>*>(p);
}
template <int N, class T> DEVICE void store_pack(T* p, const Pack<T, N>& pack) {
  *reinterpret_cast<Pack<T, N>*>(p) = pack;
}
#endif
// Copies N elements to shared memory without passing through registers; `stage_wait` ends them.
template <int N, class T> DEVICE void stage_pack(T* shared, const T* global) {
#if !defined(GNN_EMULATED) && __CUDA_ARCH__ >= 800
  if (sizeof(T) * N % 16 == 0) {
    const u32 to = (u32)__cvta_generic_to_shared(shared);
    #pragma unroll
    for (int k = 0; k < (int)(sizeof(T) * N / 16); ++k)
      asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(to + 16 * k),
                   "l"(reinterpret_cast<const char*>(global) + 16 * k) : "memory");
    return;
  }
#endif
  store_pack<N>(shared, load_pack<N>(global));
}
DEVICE void stage_wait() {
#if !defined(GNN_EMULATED) && __CUDA_ARCH__ >= 800
  asm volatile("cp.async.wait_all;" ::: "memory");
#endif
}
"""

_SCALARS = r"""
// ---- integers: wrapping, and defined where C is not ---------------------------------------------
template <class T> struct Bits { typedef T type; };
template <> struct Bits<i8> { typedef u8 type; };
template <> struct Bits<i16> { typedef u16 type; };
template <> struct Bits<i32> { typedef u32 type; };
template <> struct Bits<i64> { typedef u64 type; };
template <class T> DEVICE T wrap_add(T a, T b) {
  typedef typename Bits<T>::type U;
  return (T)(U)((u64)(U)a + (u64)(U)b);
}
template <class T> DEVICE T wrap_sub(T a, T b) {
  typedef typename Bits<T>::type U;
  return (T)(U)((u64)(U)a - (u64)(U)b);
}
template <class T> DEVICE T wrap_mul(T a, T b) {
  typedef typename Bits<T>::type U;
  return (T)(U)((u64)(U)a * (u64)(U)b);
}
DEVICE i32 wrap_add(i32 a, i32 b) { return (i32)((u32)a + (u32)b); }
DEVICE i32 wrap_sub(i32 a, i32 b) { return (i32)((u32)a - (u32)b); }
DEVICE i32 wrap_mul(i32 a, i32 b) { return (i32)((u32)a * (u32)b); }
DEVICE u32 wrap_add(u32 a, u32 b) { return a + b; }
DEVICE u32 wrap_sub(u32 a, u32 b) { return a - b; }
DEVICE u32 wrap_mul(u32 a, u32 b) { return a * b; }
template <class T> DEVICE T floor_div(T a, T b) {  // 0 where b is 0
  if (b == 0) return 0;
  if ((T)-1 < (T)0 && b == (T)-1) return wrap_sub((T)0, a);
  const T q = (T)(a / b), r = (T)(a % b);
  return r != 0 && (T)(r ^ b) < (T)0 ? (T)(q - 1) : q;
}
template <class T> DEVICE T floor_mod(T a, T b) {  // the sign of b; 0 where b is 0
  if (b == 0 || ((T)-1 < (T)0 && b == (T)-1)) return 0;
  const T r = (T)(a % b);
  return r != 0 && (T)(r ^ b) < (T)0 ? (T)(r + b) : r;
}
template <class T> DEVICE T shift_left(T a, T b) {
  typedef typename Bits<T>::type U;
  return (U)b < sizeof(T) * 8 ? (T)(U)((u64)(U)a << (U)b) : (T)0;
}
template <class T> DEVICE T shift_right(T a, T b) {
  typedef typename Bits<T>::type U;
  return (U)b < sizeof(T) * 8 ? (T)(a >> (U)b) : a < (T)0 ? (T)-1 : (T)0;
}
template <class T> DEVICE T magnitude(T a) { return a < (T)0 ? wrap_sub((T)0, a) : a; }
DEVICE float magnitude(float a) { return fabsf(a); }
DEVICE double magnitude(double a) { return fabs(a); }
// Truncates and saturates; NaN gives 0.
template <class To, class From> DEVICE To saturate(From x) {
  const bool is_signed = (To)-1 < (To)0;
  const To least = is_signed ? (To)((u64)1 << (sizeof(To) * 8 - 1)) : (To)0;
  const To most = (To)~least;
  const From above = (From)((u64)1 << (sizeof(To) * 8 - 1)) * (is_signed ? (From)1 : (From)2);
  if (!(x == x)) return (To)0;
  return x <= (From)least ? least : x >= above ? most : (To)x;
}

// ---- floats: NaN and infinities as in NumPy -----------------------------------------------------
template <class T> DEVICE T smaller(T a, T b) { return a < b ? a : b; }
template <class T> DEVICE T greater(T a, T b) { return a > b ? a : b; }
DEVICE double smaller(double a, double b) { return a < b || a != a ? a : b; }
DEVICE double greater(double a, double b) { return a > b || a != a ? a : b; }
#if !defined(GNN_EMULATED) && __CUDA_ARCH__ >= 800
DEVICE float smaller(float a, float b) {
  float y;
  asm("min.NaN.f32 %0, %1, %2;" : "=f"(y) : "f"(a), "f"(b));
  return y;
}
DEVICE float greater(float a, float b) {
  float y;
  asm("max.NaN.f32 %0, %1, %2;" : "=f"(y) : "f"(a), "f"(b));
  return y;
}
#else
DEVICE float smaller(float a, float b) { return a < b || a != a ? a : b; }
DEVICE float greater(float a, float b) { return a > b || a != a ? a : b; }
#endif
DEVICE float remainder_of(float a, float b) { return fmodf(a, b); }
DEVICE double remainder_of(double a, double b) { return fmod(a, b); }
DEVICE float sign_like(float a, float b) { return copysignf(a, b); }
DEVICE double sign_like(double a, double b) { return copysign(a, b); }
DEVICE float round_down(float a) { return floorf(a); }
DEVICE double round_down(double a) { return floor(a); }
template <class T> DEVICE T float_mod(T a, T b) {
  const T rest = remainder_of(a, b);
  const T moved = rest * b < 0 ? rest + b : rest;
  return moved == 0 ? sign_like((T)0, b) : moved;
}
template <class T> DEVICE T float_floor_div(T a, T b) {
  const T quotient = (a - float_mod(a, b)) / b, ratio = a / b, whole = round_down(quotient);
  const T nearest = quotient - whole > (T)0.5 ? whole + (T)1 : whole;
  return b == 0 ? ratio : quotient == 0 ? sign_like((T)0, ratio) : nearest;
}
// About 1 / x, for |x| within 2^-100 and 2^100.
DEVICE float near_inverse(float x) {
#ifdef GNN_EMULATED
  return 1.0f / x;
#else
  float y;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
#endif
}
// Division by a number that many are divided by: the quotient from the inverse, then one step of
// correction (Markstein 1990) rounds it as the division would. Very small and very large divisors
// are scaled first; without a finite rest the quotient stays as it is, zeros keep their signs.
struct Divisor {
  float by, inverse, scale;
  DEVICE Divisor(float x) {
    const bool small = fabsf(x) < 0x1p-64f, large = fabsf(x) > 0x1p64f;
    scale = small ? 0x1p64f : large ? 0x1p-64f : 1.0f;
    by = x * scale;
    inverse = 1.0f / by;
  }
};
DEVICE float over(float a, const Divisor& d) {
  const float q = a * d.inverse, rest = fmaf(-q, d.by, a);
  const bool corrects = rest != 0 && fabsf(rest) <= 0x1.fffffep127f;
  return (corrects ? fmaf(rest, d.inverse, q) : q) * d.scale;
}
DEVICE float sigmoid(float x) {
  const float small = expf(-fabsf(x)), by = 1.0f + small, inverse = near_inverse(by);
  const float above = x < 0 ? small : 1.0f, q = above * inverse;
  return fmaf(fmaf(-q, by, above), inverse, q);
}
DEVICE double sigmoid(double x) {
  const double small = exp(-fabs(x));
  return (x < 0 ? small : x != x ? x : 1.0) / (1.0 + small);
}
// Recurrence up to 8, then the asymptotic series (Abramowitz and Stegun, 6.3.18); left of 1/2 by
// reflection (6.3.7). -inf at 0, NaN at -1, -2, ...
DEVICE double digamma(double x) {
  if (x == 0) return -1.0 / fabs(x);
  const bool left = x < 0.5;
  double y = left ? 1.0 - x : x, sum = 0;
  const double turn = x - round_down(x);
  if (left && turn == 0) return turn / turn;
  while (y < 8) {
    sum -= 1.0 / y;
    y += 1;
  }
  const double r = 1.0 / (y * y);
  double series = -3617.0 / 8160 * r + 1.0 / 12;
  series = series * r - 691.0 / 32760;
  series = series * r + 1.0 / 132;
  series = series * r - 1.0 / 240;
  series = series * r + 1.0 / 252;
  series = series * r - 1.0 / 120;
  series = series * r + 1.0 / 12;
  const double value = sum + log(y) - 0.5 / y - series * r;
  const double pi = 3.14159265358979323846;
  return left ? value - pi / tan(pi * (turn > 0.5 ? turn - 1 : turn)) : value;
}
DEVICE float digammaf(float x) { return (float)digamma((double)x); }

// ---- operations that combine --------------------------------------------------------------------
struct Add {
  template <class T> static DEVICE T of(T a, T b) { return wrap_add(a, b); }
  static DEVICE float of(float a, float b) { return a + b; }
  static DEVICE double of(double a, double b) { return a + b; }
};
struct Mul {
  template <class T> static DEVICE T of(T a, T b) { return wrap_mul(a, b); }
  static DEVICE float of(float a, float b) { return a * b; }
  static DEVICE double of(double a, double b) { return a * b; }
};
struct Max { template <class T> static DEVICE T of(T a, T b) { return greater(a, b); } };
struct Min { template <class T> static DEVICE T of(T a, T b) { return smaller(a, b); } };
// The greatest or smallest of a pack; pairs of 16-bit floats are compared at once.
template <class Op> struct Pairs;
#if !defined(GNN_EMULATED) && __CUDA_ARCH__ >= 800
#define GNN_PAIRS(OP, NAME) \
  template <> struct Pairs<OP> { \
    static DEVICE u32 of(bf16, u32 a, u32 b) { \
      u32 y; \
      asm(NAME ".NaN.bf16x2 %0, %1, %2;" : "=r"(y) : "r"(a), "r"(b)); \
      return y; \
    } \
    static DEVICE u32 of(f16, u32 a, u32 b) { \
      u32 y; \
      asm(NAME ".NaN.f16x2 %0, %1, %2;" : "=r"(y) : "r"(a), "r"(b)); \
      return y; \
    } \
  };
GNN_PAIRS(Max, "max")
GNN_PAIRS(Min, "min")
template <class Op, class T, int N> DEVICE float across(const Pack<T, N>& pack) {
  union { Pack<T, N> pack; u32 pairs[N / 2]; } both;
  both.pack = pack;
  u32 y = both.pairs[0];
  #pragma unroll
  for (int k = 1; k < N / 2; ++k) y = Pairs<Op>::of(T(), y, both.pairs[k]);
  return Op::of(wide(T{(u16)y}), wide(T{(u16)(y >> 16)}));
}
#else
template <class Op, class T, int N> DEVICE float across(const Pack<T, N>& pack) {
  float y = wide(pack.at[0]);
  for (int k = 1; k < N; ++k) y = Op::of(y, wide(pack.at[k]));
  return y;
}
#endif
struct Or { template <class T> static DEVICE T of(T a, T b) { return (T)(a | b); } };
struct And { template <class T> static DEVICE T of(T a, T b) { return (T)(a & b); } };
"""

_TEAMS = r"""
// ---- lanes and blocks ---------------------------------------------------------------------------
template <class T> struct Wire { typedef T type; };  // what shuffles carry
template <> struct Wire<bool> { typedef int type; };
template <> struct Wire<i8> { typedef int type; };
template <> struct Wire<u8> { typedef int type; };
template <> struct Wire<i16> { typedef int type; };
template <> struct Wire<u16> { typedef int type; };
template <int G> DEVICE unsigned team_mask() {  // the G neighbouring lanes that work on one row
  return G == 32 ? 0xffffffffu : ((1u << (G & 31)) - 1u) << (threadIdx.x & 31u & ~(G - 1u));
}
// The combination over G <= 32 neighbouring lanes, the same bits in each.
template <class Op, int G, class T> DEVICE T lanes_reduce(T v) {
  const unsigned mask = team_mask<G>();
  #pragma unroll
  for (int d = G / 2; d > 0; d /= 2)
    v = Op::of(v, (T)__shfl_xor_sync(mask, (typename Wire<T>::type)v, d));
  return v;
}
// Waits for the G threads of a team, in a block of B.
template <int G, int B> DEVICE void team_sync() {
  if (G <= 32) {
    __syncwarp(team_mask<(G < 32 ? G : 32)>());
  } else if (G == B) {
    __syncthreads();
  } else {
#ifdef GNN_EMULATED
    gnn_barrier(threadIdx.x / G, G);
#else
    asm volatile("bar.sync %0, %1;" ::"r"(1 + (int)(threadIdx.x / G)), "n"(G) : "memory");
#endif
  }
}
// The combination over a team of G threads in a block of B, the same bits in each.
template <class Op, int G, int B, class T> DEVICE T team_reduce(T v) {
  if (G <= 32) return lanes_reduce<Op, (G < 32 ? G : 32)>(v);
  __shared__ T parts[B < 32 ? 1 : B / 32];
  v = lanes_reduce<Op, 32>(v);
  team_sync<G, B>();  // the readers of the time before are done
  if (threadIdx.x % 32 == 0) parts[threadIdx.x / 32] = v;
  team_sync<G, B>();
  const int first = threadIdx.x / G * (G / 32);
  v = parts[first];
  #pragma unroll
  for (int w = 1; w < G / 32; ++w) v = Op::of(v, parts[first + w]);
  return v;
}
// Two combinations at once wait half as often.
template <class Op0, class Op1, int G, int B, class T, class U>
DEVICE void team_reduce(T& a, U& b) {
  a = lanes_reduce<Op0, (G < 32 ? G : 32)>(a);
  b = lanes_reduce<Op1, (G < 32 ? G : 32)>(b);
  if (G <= 32) return;
  __shared__ T parts0[B < 32 ? 1 : B / 32];
  __shared__ U parts1[B < 32 ? 1 : B / 32];
  team_sync<G, B>();
  if (threadIdx.x % 32 == 0) {
    parts0[threadIdx.x / 32] = a;
    parts1[threadIdx.x / 32] = b;
  }
  team_sync<G, B>();
  const int first = threadIdx.x / G * (G / 32);
  a = parts0[first];
  b = parts1[first];
  #pragma unroll
  for (int w = 1; w < G / 32; ++w) {
    a = Op0::of(a, parts0[first + w]);
    b = Op1::of(b, parts1[first + w]);
  }
}
// Thread (x, y) of a block brings v; thread (x, 0) gets the combination over all y, in one order.
template <class Op, int X, int Y, class T> DEVICE T split_reduce(T v) {
  __shared__ T all[X * Y];
  const int x = threadIdx.x % X, y = threadIdx.x / X;
  __syncthreads();
  all[y * X + x] = v;
  #pragma unroll
  for (int half = Y / 2; half > 0; half /= 2) {
    __syncthreads();
    if (y < half) all[y * X + x] = Op::of(all[y * X + x], all[(y + half) * X + x]);
  }
  return all[x];
}
// Running combination over a block: `before` leaves out the own value, `total` is that of all.
template <class Op, int B, class T> DEVICE T block_scan(T v, T neutral, T& before, T& total) {
  typedef typename Wire<T>::type W;
  __shared__ T sums[B / 32];
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  T run = v;
  #pragma unroll
  for (int d = 1; d < 32; d *= 2) {
    const T other = (T)__shfl_up_sync(0xffffffffu, (W)run, d);
    if (lane >= d) run = Op::of(other, run);
  }
  T left = (T)__shfl_up_sync(0xffffffffu, (W)run, 1);
  if (lane == 0) left = neutral;
  __syncthreads();
  if (lane == 31) sums[warp] = run;
  __syncthreads();
  T offset = neutral;
  total = neutral;
  for (int w = 0; w < B / 32; ++w) {
    if (w == warp) offset = total;
    total = Op::of(total, sums[w]);
  }
  before = Op::of(offset, left);
  return Op::of(offset, run);
}
// The first failed check of a step stays: status[0] is its number, status[1] the value it saw.
DEVICE void fail(i64* status, i64 number, i64 value) {
  if (atomicCAS(reinterpret_cast<u64*>(status), (u64)0, (u64)number) == 0) status[1] = value;
}
"""

PRELUDE = "\n".join(part.strip("\n") for part in (_TYPES, _SCALARS, _TEAMS)) + "\n"
