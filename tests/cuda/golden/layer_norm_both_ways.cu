// launch: 264 blocks of 512 threads, 32768 bytes of shared memory
// _finish: 64 blocks of 256 threads, 0 bytes of shared memory
extern "C" __global__ void __launch_bounds__(512) sum_divide_subtract_square_add_rsqrt_multiply_01246a6cd246(const float* b0, const float* b1, const float* __restrict__ b2, float* __restrict__ b3, float* __restrict__ b4, const float* __restrict__ b5, float* __restrict__ b6, float* b7, float* __restrict__ t0, float* __restrict__ t1, const idx rows) {
  const idx part = blockIdx.x;
  const int lane = threadIdx.x % 128, team = threadIdx.x / 128;
  DYNAMIC_SHARED(chip);
  float s0[8];
  float* s0_all = (float*)(chip + 0) + team * 1024;
  float s1[8];
  float* s1_all = (float*)(chip + 16384) + team * 1024;
  Pack<float, 4> r0[2], r0_next[2];
  Pack<float, 4> r1[2], r1_next[2];
  #pragma unroll
  for (int k = 0; k < 8; ++k) s0[k] = 0.0f;
  #pragma unroll
  for (int k = 0; k < 8; ++k) s1[k] = 0.0f;
  if (blockIdx.x * 4 + team < rows) {
    #pragma unroll
    for (int k = 0; k < 2; ++k) {
      const idx j0 = (lane + k * 128) * 4;
      r0_next[k] = load_pack<4>(b0 + (blockIdx.x * 4 + team) * 1024 + j0);
      r1_next[k] = load_pack<4>(b1 + (blockIdx.x * 4 + team) * 1024 + j0);
    }
  }
  for (idx i = blockIdx.x * 4 + team; i < rows; i += gridDim.x * 4) {
    #pragma unroll
    for (int k = 0; k < 2; ++k) {
      r0[k] = r0_next[k];
      r1[k] = r1_next[k];
    }
    if (i + gridDim.x * 4 < rows) {
      #pragma unroll
      for (int k = 0; k < 2; ++k) {
        const idx j0 = (lane + k * 128) * 4;
        r0_next[k] = load_pack<4>(b0 + (i + gridDim.x * 4) * 1024 + j0);
        r1_next[k] = load_pack<4>(b1 + (i + gridDim.x * 4) * 1024 + j0);
      }
    }
    float a0 = 0.0f;
    float a1 = 0.0f;
    #pragma unroll
    for (int k = 0; k < 2; ++k) {
      const idx j0 = (lane + k * 128) * 4;
      const auto p0 = load_pack<4>(b2 + j0);
      #pragma unroll
      for (int e = 0; e < 4; ++e) {
        const idx j = j0 + e;
        const float v1 = r0[k].at[e];
        a0 += v1;
        const float v2 = r1[k].at[e];
        const float v3 = p0.at[e];
        const float v4 = v2 * v3;
        a1 += v4;
        s0[k * 4 + e] += v2;
      }
    }
    team_reduce<Add, Add, 128, 512>(a0, a1);
    float a2 = 0.0f;
    const float v5 = a0 / 1024.0f;
    #pragma unroll
    for (int k = 0; k < 2; ++k) {
      const idx j0 = (lane + k * 128) * 4;
      #pragma unroll
      for (int e = 0; e < 4; ++e) {
        const idx j = j0 + e;
        const float v6 = r0[k].at[e];
        const float v7 = v6 - v5;
        const float v8 = v7 * v7;
        a2 += v8;
      }
    }
    a2 = team_reduce<Add, 128, 512>(a2);
    float a3 = 0.0f;
    const float v9 = a2 / 1024.0f;
    const float v10 = v9 + 0.001f;
    const float v11 = sqrtf(v10);
    const float v12 = 1.0f / v11;
    #pragma unroll
    for (int k = 0; k < 2; ++k) {
      const idx j0 = (lane + k * 128) * 4;
      const auto p0 = load_pack<4>(b5 + j0);
      const auto p1 = load_pack<4>(b2 + j0);
      Pack<float, 4> o0;
      #pragma unroll
      for (int e = 0; e < 4; ++e) {
        const idx j = j0 + e;
        const float v13 = r0[k].at[e];
        const float v14 = v13 - v5;
        const float v15 = v14 * v12;
        const float v16 = p1.at[e];
        const float v17 = v15 * v16;
        const float v18 = p0.at[e];
        const float v19 = v17 + v18;
        o0.at[e] = v19;
        const float v20 = r1[k].at[e];
        const float v21 = v20 * v16;
        const float v22 = v21 * v15;
        a3 += v22;
        const float v23 = v20 * v15;
        s1[k * 4 + e] += v23;
      }
      store_pack<4>(b4 + i * 1024 + j0, o0);
    }
    a3 = team_reduce<Add, 128, 512>(a3);
    const float v24 = a3 / 1024.0f;
    const float v25 = a1 / 1024.0f;
    #pragma unroll
    for (int k = 0; k < 2; ++k) {
      const idx j0 = (lane + k * 128) * 4;
      const auto p0 = load_pack<4>(b2 + j0);
      Pack<float, 4> o0;
      #pragma unroll
      for (int e = 0; e < 4; ++e) {
        const idx j = j0 + e;
        const float v26 = r1[k].at[e];
        const float v27 = p0.at[e];
        const float v28 = v26 * v27;
        const float v29 = v28 - v25;
        const float v30 = r0[k].at[e];
        const float v31 = v30 - v5;
        const float v32 = v31 * v12;
        const float v33 = v32 * v24;
        const float v34 = v29 - v33;
        const float v35 = v12 * v34;
        o0.at[e] = v35;
      }
      store_pack<4>(b7 + i * 1024 + j0, o0);
    }
  }
  #pragma unroll
  for (int k = 0; k < 8; ++k) {
    const idx j = (lane + k / 4 * 128) * 4 + k % 4;
    if (j < 1024) s0_all[j] = s0[k];
  }
  #pragma unroll
  for (int k = 0; k < 8; ++k) {
    const idx j = (lane + k / 4 * 128) * 4 + k % 4;
    if (j < 1024) s1_all[j] = s1[k];
  }
  __syncthreads();
  for (idx j = threadIdx.x; j < 1024; j += 512) {
    float total36 = (s0_all - team * 1024)[j];
    for (int t = 1; t < 4; ++t) total36 += (s0_all - team * 1024)[t * 1024 + j];
    t0[j + part * 1024] = total36;
    float total37 = (s1_all - team * 1024)[j];
    for (int t = 1; t < 4; ++t) total37 += (s1_all - team * 1024)[t * 1024 + j];
    t1[j + part * 1024] = total37;
  }
}
extern "C" __global__ void __launch_bounds__(256) sum_divide_subtract_square_add_rsqrt_multiply_01246a6cd246_finish(const float* b0, const float* b1, const float* __restrict__ b2, float* __restrict__ b3, float* __restrict__ b4, const float* __restrict__ b5, float* __restrict__ b6, float* b7, float* __restrict__ t0, float* __restrict__ t1, const idx rows) {
  idx block = blockIdx.x;
  if (block >= 0 && block < 32) {
    const int x = threadIdx.x % 32, y = threadIdx.x / 32;
    const idx out = block * 32 + x;
    const idx c = out;
    float f0 = 0.0f;
    for (idx r = y; r < 264 && out < 1024; r += 8) {
      const idx p = r;
      const float v1 = t0[c + p * 1024];
      f0 += v1;
    }
    f0 = split_reduce<Add, 32, 8>(f0);
    if (y == 0 && out < 1024) {
      b3[c] = f0;
    }
  }
  block -= 32;
  if (block >= 0 && block < 32) {
    const int x = threadIdx.x % 32, y = threadIdx.x / 32;
    const idx out = block * 32 + x;
    const idx c = out;
    float f1 = 0.0f;
    for (idx r = y; r < 264 && out < 1024; r += 8) {
      const idx p = r;
      const float v2 = t1[c + p * 1024];
      f1 += v2;
    }
    f1 = split_reduce<Add, 32, 8>(f1);
    if (y == 0 && out < 1024) {
      b6[c] = f1;
    }
  }
}
