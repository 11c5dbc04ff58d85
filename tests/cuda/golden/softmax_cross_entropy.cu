// launch: 264 blocks of 512 threads, 100544 bytes of shared memory
// _finish: 1 blocks of 256 threads, 0 bytes of shared memory
extern "C" __global__ void __launch_bounds__(512) max_subtract_exp_sum_log_checked_labels_take_alo_3bac93ddf7a6(const bf16* b0, bf16* b1, const i32* __restrict__ b2, float* __restrict__ b3, double* __restrict__ t1, const idx rows, i64* status) {
  const idx part = blockIdx.x;
  const int lane = threadIdx.x;
  DYNAMIC_SHARED(chip);
  bf16* r0 = (bf16*)(chip + 0);
  double a2 = 0.0;
  const float v1 = rounded<bf16>(0.00012207031f);
  for (idx i = blockIdx.x; i < rows; i += gridDim.x) {
    const idx head = -(i) & 7;  // elements to the next pack
    const idx pad = (8 - head) & 7;
    const idx packed = (50257 - head) / 8 * 8;
    for (idx q = lane * 8; q < packed; q += 4096) {
      const idx j0 = head + q;
      stage_pack<8>(r0 + pad + j0, b0 + i * 50257 + j0);
    }
    for (idx q = lane; q < 50257 - packed; q += 512) {
      const idx j = q < head ? q : q + packed;
      r0[pad + j] = b0[i * 50257 + j];
    }
    stage_wait();
    float a0 = bitcast<float>(0xff800000u);
    for (idx q = lane * 8; q < packed; q += 512 * 8) {
      const idx j0 = head + q;
      const auto p0 = load_pack<8>(r0 + pad + j0);
      a0 = Max::of(a0, across<Max>(p0));
    }
    for (idx q = lane; q < 50257 - packed; q += 512) {
      const idx j = q < head ? q : q + packed;
      const float v2 = wide(r0[pad + j]);
      a0 = Max::of(a0, v2);
    }
    a0 = team_reduce<Max, 512, 512>(a0);
    float a1 = 0.0f;
    for (idx q = lane * 8; q < packed; q += 512 * 8) {
      const idx j0 = head + q;
      const auto p0 = load_pack<8>(r0 + pad + j0);
      #pragma unroll
      for (int e = 0; e < 8; ++e) {
        const idx j = j0 + e;
        const float v3 = wide(p0.at[e]);
        const float v4 = v3 - a0;
        const float v5 = expf(v4);
        a1 += v5;
      }
    }
    for (idx q = lane; q < 50257 - packed; q += 512) {
      const idx j = q < head ? q : q + packed;
      const float v6 = wide(r0[pad + j]);
      const float v7 = v6 - a0;
      const float v8 = expf(v7);
      a1 += v8;
    }
    a1 = team_reduce<Add, 512, 512>(a1);
    const float v9 = logf(a1);
    const i32 v10 = b2[i];
    const bool v11 = v10 >= 0;
    const bool v12 = v10 < 50257;
    const bool v13 = (bool)(v11 & v12);
    const i64 v14 = (i64)v10;
    if (!v13) fail(status, 1, (i64)v14);
    const i64 v15 = v13 ? v14 : 0ll;
    const i32 v16 = (i32)v15;
    const bool v17 = v16 >= -50257;
    const bool v18 = v16 < 50257;
    const bool v19 = (bool)(v17 & v18);
    const i64 v20 = (i64)v16;
    if (!v19) fail(status, 2, (i64)v20);
    const i64 v21 = v19 ? v20 : 0ll;
    const bool v22 = v21 < 0ll;
    const i64 v23 = wrap_add(v21, 50257ll);
    const i64 v24 = v22 ? v23 : v21;
    const float v25 = wide(b0[(idx)v24 + i * 50257]);
    const float v26 = v25 - a0;
    const float v27 = v9 - v26;
    const float v28 = rounded<bf16>(v27);
    const double v29 = (double)v28;
    if (lane == 0) {
      a2 += v29;
    }
    team_sync<512, 512>();  // all lanes have read what is overwritten now
    const float v30 = v1 / a1;
    for (idx q = lane * 8; q < packed; q += 512 * 8) {
      const idx j0 = head + q;
      const auto p0 = load_pack<8>(r0 + pad + j0);
      Pack<bf16, 8> o0;
      #pragma unroll
      for (int e = 0; e < 8; ++e) {
        const idx j = j0 + e;
        const float v31 = wide(p0.at[e]);
        const float v32 = v31 - a0;
        const float v33 = expf(v32);
        const float v34 = v33 * v30;
        const bool v35 = v10 == (i32)(j);
        const float v36 = v35 ? v1 : 0.0f;
        const float v37 = v34 - v36;
        o0.at[e] = As<bf16>::of(v37);
      }
      store_pack<8>(b1 + i * 50257 + j0, o0);
    }
    for (idx q = lane; q < 50257 - packed; q += 512) {
      const idx j = q < head ? q : q + packed;
      const float v38 = wide(r0[pad + j]);
      const float v39 = v38 - a0;
      const float v40 = expf(v39);
      const float v41 = v40 * v30;
      const bool v42 = v10 == (i32)(j);
      const float v43 = v42 ? v1 : 0.0f;
      const float v44 = v41 - v43;
      b1[i * 50257 + j] = As<bf16>::of(v44);
    }
    team_sync<512, 512>();  // columns have other owners in the next row
  }
  a2 = team_reduce<Add, 512, 512>(a2);
  if (threadIdx.x == 0) {
    t1[part] = a2;
  }
}
extern "C" __global__ void __launch_bounds__(256) max_subtract_exp_sum_log_checked_labels_take_alo_3bac93ddf7a6_finish(const bf16* b0, bf16* b1, const i32* __restrict__ b2, float* __restrict__ b3, double* __restrict__ t1, const idx rows, i64* status) {
  idx block = blockIdx.x;
  const int x = threadIdx.x % 1, y = threadIdx.x / 1;
  const idx out = block * 1 + x;
  const idx c = 0;
  double f0 = 0.0;
  for (idx r = y; r < 264 && out < 1; r += 256) {
    const idx p = r;
    const double v1 = t1[p];
    f0 += v1;
  }
  f0 = split_reduce<Add, 1, 256>(f0);
  if (y == 0 && out < 1) {
    const float v2 = (float)f0;
    b3[0] = v2;
  }
}

// launch: 1 blocks of 256 threads, 0 bytes of shared memory
static DEVICE void cast_1604ff4269ce_rows(bf16* __restrict__ b0, const float* __restrict__ b1, const idx rows, idx block) {
  const idx thread = block * 256 + threadIdx.x;
  const float v1 = b1[0];
  const float v2 = v1 / 8192.0f;
  const float v3 = rounded<bf16>(v2);
  if (const idx i = thread; i < rows) {
    b0[0] = As<bf16>::of(v2);
  }
}
extern "C" __global__ void __launch_bounds__(256) cast_1604ff4269ce(bf16* __restrict__ b0, const float* __restrict__ b1, const idx rows) {
  cast_1604ff4269ce_rows(b0, b1, rows, blockIdx.x);
}
