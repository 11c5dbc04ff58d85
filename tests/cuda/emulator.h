// Runs generated CUDA C on the host: the threads of a block are fibers of one system thread.
//
// A fiber runs until it ends or waits for others: at __syncthreads for all threads of the block, at
// a shuffle or vote for the lanes of its mask. The order in which fibers and blocks run can be
// turned round (`gnn_order`), so that a missing barrier shows as a different result.
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <tuple>
#include <type_traits>
#include <utility>
#if !defined(__x86_64__)
#include <ucontext.h>
#endif

#define GNN_EMULATED 1
#define DEVICE inline
#define __global__
#define __device__
#define __launch_bounds__(n)
#define __shared__ static
#define DYNAMIC_SHARED(name) unsigned char* name = gnn_dynamic

struct GnnDim { unsigned x; };
static GnnDim threadIdx, blockIdx, blockDim, gridDim;
static const int GNN_THREADS = 1024;
static const size_t GNN_STACK = 64 << 10;
static const size_t GNN_BEHIND = 1 << 10;  // bytes behind the dynamic shared memory that are watched
alignas(16) static unsigned char gnn_dynamic[228 << 10];
static int gnn_order = 0;
static char gnn_message[256];

enum GnnState { GNN_RUNS, GNN_BLOCK, GNN_TEAM, GNN_WARP, GNN_DONE };
struct GnnFiber {
  GnnState state;
  unsigned mask;
  int source;  // lane whose word is wanted
  unsigned votes;
  uint64_t given, got;
#if defined(__x86_64__)
  void* stack_pointer;
#else
  ucontext_t context;
#endif
};
static GnnFiber gnn_fibers[GNN_THREADS];
static unsigned char* gnn_stacks;
static int gnn_current = -1;
static void (*gnn_body)(void*);
static void* gnn_argument;

static void gnn_fail(const char* what) {
  if (!gnn_message[0])
    snprintf(gnn_message, sizeof gnn_message, "%s in block %u, thread %u", what, blockIdx.x,
             threadIdx.x);
}

#if defined(__x86_64__)
static void* gnn_main_stack;
extern "C" void gnn_switch(void** from, void* to);
asm(R"(
.text
.type gnn_switch, @function
gnn_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size gnn_switch, .-gnn_switch
)");
static void gnn_leave() { gnn_switch(&gnn_fibers[gnn_current].stack_pointer, gnn_main_stack); }
static void gnn_enter(int t) { gnn_switch(&gnn_main_stack, gnn_fibers[t].stack_pointer); }
static void gnn_begin() {
  gnn_body(gnn_argument);
  gnn_fibers[gnn_current].state = GNN_DONE;
  gnn_leave();
}
static void gnn_prepare(int t) {
  void** top = reinterpret_cast<void**>(gnn_stacks + (t + 1) * GNN_STACK);
  *--top = nullptr;  // keeps the stack at 8 modulo 16 when gnn_begin starts, as after a call
  *--top = reinterpret_cast<void*>(gnn_begin);
  for (int k = 0; k < 6; ++k) *--top = nullptr;
  gnn_fibers[t].stack_pointer = top;
}
#else
static ucontext_t gnn_main_context;
static void gnn_leave() { swapcontext(&gnn_fibers[gnn_current].context, &gnn_main_context); }
static void gnn_enter(int t) { swapcontext(&gnn_main_context, &gnn_fibers[t].context); }
static void gnn_begin() {
  gnn_body(gnn_argument);
  gnn_fibers[gnn_current].state = GNN_DONE;
  gnn_leave();
}
static void gnn_prepare(int t) {
  ucontext_t& c = gnn_fibers[t].context;
  getcontext(&c);
  c.uc_stack.ss_sp = gnn_stacks + t * GNN_STACK;
  c.uc_stack.ss_size = GNN_STACK;
  c.uc_link = nullptr;
  makecontext(&c, gnn_begin, 0);
}
#endif

static void gnn_wait(GnnState state, unsigned mask) {
  GnnFiber& own = gnn_fibers[gnn_current];
  own.state = state;
  own.mask = mask;
  gnn_leave();
}
static bool gnn_all_wait(int threads, int from, unsigned mask) {
  for (int lane = 0; lane < 32; ++lane) {
    if (!(mask >> lane & 1)) continue;
    if (from + lane >= threads) return false;
    const GnnFiber& f = gnn_fibers[from + lane];
    if (f.state != GNN_WARP || f.mask != mask) return false;
  }
  return true;
}
// Every lane of the mask has brought a word: each gets the one it wants, then runs on.
static void gnn_deliver(int from, unsigned mask) {
  unsigned votes = 0;
  for (int lane = 0; lane < 32; ++lane)
    if (mask >> lane & 1 && gnn_fibers[from + lane].given) votes |= 1u << lane;
  for (int lane = 0; lane < 32; ++lane) {
    if (!(mask >> lane & 1)) continue;
    GnnFiber& f = gnn_fibers[from + lane];
    if (!(mask >> f.source & 1)) gnn_fail("a shuffle reads a lane outside its mask");
    f.votes = votes;
    f.got = gnn_fibers[from + f.source].given;
    f.state = GNN_RUNS;
  }
}
static bool gnn_team_waits(int first, int size) {
  for (int t = first; t < first + size; ++t)
    if (gnn_fibers[t].state != GNN_TEAM) return false;
  return true;
}
// Wakes whoever has nothing left to wait for; whether anybody was woken.
static bool gnn_release(int threads) {
  bool woken = false;
  for (int t = 0; t < threads; ++t) {
    const GnnFiber& f = gnn_fibers[t];
    if (f.state != GNN_WARP || !gnn_all_wait(threads, t & ~31, f.mask)) continue;
    gnn_deliver(t & ~31, f.mask);
    woken = true;
  }
  for (int t = 0; t < threads && !woken; ++t) {
    const int size = gnn_fibers[t].source, first = t / (size ? size : 1) * size;
    if (gnn_fibers[t].state != GNN_TEAM || !gnn_team_waits(first, size)) continue;
    for (int n = first; n < first + size; ++n) gnn_fibers[n].state = GNN_RUNS;
    woken = true;
  }
  if (woken) return true;
  for (int t = 0; t < threads; ++t)
    if (gnn_fibers[t].state != GNN_BLOCK) return false;  // threads that have ended cannot come
  for (int t = 0; t < threads; ++t) gnn_fibers[t].state = GNN_RUNS;
  return true;
}
static void gnn_run_block(int threads) {
  for (int t = 0; t < threads; ++t) {
    gnn_fibers[t].state = GNN_RUNS;
    gnn_prepare(t);
  }
  for (;;) {
    bool ran = false, done = true;
    for (int n = 0; n < threads; ++n) {
      const int t = gnn_order ? threads - 1 - n : n;
      if (gnn_fibers[t].state == GNN_RUNS) {
        gnn_current = t;
        threadIdx.x = t;
        gnn_enter(t);
        ran = true;
      }
      done = done && gnn_fibers[t].state == GNN_DONE;
    }
    if (done) return;
    if (!gnn_release(threads) && !ran) return gnn_fail("threads wait for others that do not come");
  }
}
static void gnn_launch(void (*body)(void*), void* argument, int blocks, int threads, size_t shared,
                       bool fibers) {
  if (!gnn_stacks) gnn_stacks = static_cast<unsigned char*>(malloc(GNN_THREADS * GNN_STACK));
  gnn_body = body;
  gnn_argument = argument;
  blockDim.x = threads;
  gridDim.x = blocks;
  const size_t most = sizeof gnn_dynamic, used = shared + GNN_BEHIND < most ? shared + GNN_BEHIND : most;
  for (int n = 0; n < blocks; ++n) {
    blockIdx.x = gnn_order ? blocks - 1 - n : n;
    memset(gnn_dynamic, 0xff, used);  // shared memory holds nothing at first
    if (fibers) {
      gnn_run_block(threads);
    } else {
      for (int t = 0; t < threads; ++t) {
        threadIdx.x = gnn_order ? threads - 1 - t : t;
        body(argument);
      }
    }
    for (size_t k = shared; k < used; ++k)
      if (gnn_dynamic[k] != 0xff) return gnn_fail("a write behind the shared memory asked for");
  }
}

// Packs are copied byte by byte here, so that a misaligned one is an error and not a crash.
template <class P> inline P gnn_load(const void* p) {
  P pack;
  if ((size_t)p % alignof(P)) gnn_fail("a misaligned pack");
  memcpy(&pack, p, sizeof pack);
  return pack;
}
template <class P> inline void gnn_store(void* p, const P& pack) {
  if ((size_t)p % alignof(P)) gnn_fail("a misaligned pack");
  memcpy(p, &pack, sizeof pack);
}

// ---- what the device compiler builds in ---------------------------------------------------------
inline void __syncthreads() { gnn_wait(GNN_BLOCK, 0); }
inline void __syncwarp(unsigned mask = 0xffffffffu) {
  gnn_fibers[gnn_current].source = gnn_current & 31;
  gnn_wait(GNN_WARP, mask);
}
inline void gnn_barrier(int, int size) {  // of a team of `size` neighbouring threads
  gnn_fibers[gnn_current].source = size;
  gnn_wait(GNN_TEAM, 0);
}
template <class T> inline T gnn_exchange(unsigned mask, T value, int lane) {
  static_assert(sizeof(T) <= 8, "one word");
  GnnFiber& own = gnn_fibers[gnn_current];
  memcpy(&own.given, &value, sizeof value);
  own.source = lane;
  gnn_wait(GNN_WARP, mask);
  T got;
  memcpy(&got, &own.got, sizeof got);
  return got;
}
template <class T> inline T __shfl_xor_sync(unsigned mask, T v, int d) {
  return gnn_exchange(mask, v, (gnn_current & 31) ^ d);
}
template <class T> inline T __shfl_up_sync(unsigned mask, T v, int d) {
  const int lane = gnn_current & 31;
  return gnn_exchange(mask, v, lane >= d ? lane - d : lane);
}
inline unsigned __ballot_sync(unsigned mask, int test) {
  gnn_exchange<uint64_t>(mask, test != 0, gnn_current & 31);
  return gnn_fibers[gnn_current].votes;
}
inline int __any_sync(unsigned mask, int test) { return __ballot_sync(mask, test) != 0; }
inline int __ffs(unsigned v) { return __builtin_ffs((int)v); }
template <class T> inline T atomicAdd(T* p, T v) {
  const T old = *p;
  *p = old + v;
  return old;
}
template <class T> inline T atomicCAS(T* p, T expected, T v) {
  const T old = *p;
  if (old == expected) *p = v;
  return old;
}
inline float gnn_half_to_float(unsigned short h) {
  const int exponent = h >> 10 & 31, mantissa = h & 1023;
  float v = exponent == 31 ? (mantissa ? NAN : INFINITY)
            : exponent     ? ldexpf((float)(mantissa + 1024), exponent - 25)
                           : ldexpf((float)mantissa, -24);
  return h >> 15 ? -v : v;
}
inline unsigned short gnn_float_to_half(float x) {
  const unsigned short sign = std::signbit(x) ? 0x8000 : 0;
  const float size = fabsf(x);
  if (x != x) return 0x7e00;
  if (size >= 65520.0f) return sign | 0x7c00;
  if (size < ldexpf(1, -14)) return sign | (unsigned short)nearbyintf(ldexpf(size, 24));
  int exponent;
  const float fraction = frexpf(size, &exponent);  // in [1/2, 1)
  const int mantissa = (int)nearbyintf(ldexpf(fraction, 11));  // 1024 to 2048
  return sign | (unsigned short)(((exponent + 13) << 10) + mantissa);
}
inline double erfinv(double x) {
  if (!(fabs(x) < 1)) return x == 1 ? INFINITY : x == -1 ? -INFINITY : NAN;
  const double l = log1p(-x * x), a = 0.147, b = 2 / (M_PI * a) + l / 2;
  double y = copysign(sqrt(sqrt(b * b - l / a) - b), x);
  for (int k = 0; k < 4; ++k) {
    const double far = (1 - fabs(x) - erfc(fabs(y))) * (x < 0 ? -1 : 1);
    const double gap = fabs(x) < 0.5 ? erf(y) - x : far;
    y -= gap * sqrt(M_PI) / 2 * exp(y * y);
  }
  return x == 0 ? x : y;
}
inline float erfinvf(float x) { return (float)erfinv((double)x); }

// ---- calling a kernel by the addresses of its arguments -----------------------------------------
template <class... A, size_t... K>
void gnn_call(void (*kernel)(A...), void** given, std::index_sequence<K...>) {
  kernel(*static_cast<A*>(given[K])...);
}
template <class... A>
void gnn_run(void (*kernel)(A...), void** given, int blocks, int threads, size_t shared,
             bool fibers) {
  auto both = std::make_pair(kernel, given);
  gnn_launch(
      [](void* p) {
        auto* own = static_cast<std::pair<void (*)(A...), void**>*>(p);
        gnn_call(own->first, own->second, std::index_sequence_for<A...>());
      },
      &both, blocks, threads, shared, fibers);
}
// Bytes of each parameter, negative for a pointer; 0 ends the list.
template <class... A> const int* gnn_sizes(void (*)(A...)) {
  static const int sizes[] = {(std::is_pointer<A>::value ? -1 : 1) * (int)sizeof(A)..., 0};
  return sizes;
}
#define GNN_ENTRY(name, fibers)                                                                    \
  extern "C" const char* run_##name(void** given, int blocks, int threads, int shared,             \
                                    int order) {                                                   \
    gnn_order = order;                                                                             \
    gnn_message[0] = 0;                                                                            \
    gnn_run(name, given, blocks, threads, shared, fibers);                                         \
    return gnn_message;                                                                            \
  }                                                                                                \
  extern "C" const int* sizes_##name() { return gnn_sizes(name); }
