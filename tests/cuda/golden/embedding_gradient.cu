// launch: 63 blocks of 256 threads, 0 bytes of shared memory
// _places: 1 blocks of 256 threads, 0 bytes of shared memory
// _apply: 5 blocks of 256 threads, 0 bytes of shared memory
extern "C" __global__ void __launch_bounds__(256) scatter_792c58e43770(float* __restrict__ b0, const i32* __restrict__ b1, const float* __restrict__ b2, i64* places, const idx rows, i64* status) {
  const idx thread = blockIdx.x * 256 + threadIdx.x;
  const idx packed = 64000 / 4 * 4;
  for (idx q = thread * 4; q < packed; q += gridDim.x * 256 * 4) {
    const idx c0 = q;
    Pack<float, 4> o0;
    #pragma unroll
    for (int e = 0; e < 4; ++e) {
      const idx c = c0 + e;
      o0.at[e] = 0.0f;
    }
    store_pack<4>(b0 + c0, o0);
  }
  for (idx q = thread; q < 64000 - packed; q += gridDim.x * 256) {
    const idx c = q + packed;
    b0[c] = 0.0f;
  }
}
extern "C" __global__ void __launch_bounds__(256) scatter_792c58e43770_places(float* __restrict__ b0, const i32* __restrict__ b1, const float* __restrict__ b2, i64* places, const idx rows, i64* status) {
  for (idx u = blockIdx.x * 256 + threadIdx.x; u < 36; u += gridDim.x * 256) {
    const idx u0 = (u / 9);
    const idx u1 = -(u / 9) * 9 + u;
    const i32 v1 = b1[u0 * 9 + u1];
    const bool v2 = v1 >= -1000;
    const bool v3 = v1 < 1000;
    const bool v4 = (bool)(v2 & v3);
    const i64 v5 = (i64)v1;
    if (!v4) fail(status, 1, (i64)v5);
    const i64 v6 = v4 ? v5 : 0ll;
    const bool v7 = v6 < 0ll;
    const i64 v8 = wrap_add(v6, 1000ll);
    const i64 v9 = v7 ? v8 : v6;
    const i64 place = (idx)v9 * 64;
    places[u] = place;
  }
}
extern "C" __global__ void __launch_bounds__(256) scatter_792c58e43770_apply(float* __restrict__ b0, const i32* __restrict__ b1, const float* __restrict__ b2, i64* places, const idx rows, i64* status) {
  const int lane = threadIdx.x % 32;
  for (idx u = blockIdx.x * 8 + threadIdx.x / 32; u < 36; u += gridDim.x * 8) {
    const i64 place = places[u];
    bool first = true;  // whether no update before u goes to the same place
    for (idx w = 0; w < u && first; w += 32) {
      const bool same = w + lane < u && places[w + lane] == place;
      first = !__any_sync(0xffffffffu, same);
    }
    if (!first) continue;
    for (idx w = u; w < 36; w += 32) {
      const bool same = w + lane < 36 && places[w + lane] == place;
      unsigned hits = __ballot_sync(0xffffffffu, same);
      for (; hits; hits &= hits - 1) {
        const idx now = w + __ffs(hits) - 1;
        const idx u0 = (now / 9);
        const idx u1 = -(now / 9) * 9 + now;
        for (idx d = lane; d < 64; d += 32) {
          const idx u2 = d;
          const float v1 = b2[u0 * 576 + u1 * 64 + u2];
          b0[(place + u2)] += v1;
        }
      }
    }
  }
}
