// launch: 8 blocks of 256 threads, 0 bytes of shared memory
static DEVICE void cast_c79007641805_rows(float* __restrict__ b0, const idx rows, idx block, idx blocks) {
  const idx thread = block * 256 + threadIdx.x;
  const idx packed = rows / 4 * 4;
  const float v1 = wide(As<bf16>::of(0.00012207031f));
  for (idx q = thread * 4; q < packed; q += blocks * 256 * 4) {
    const idx i0 = q;
    Pack<float, 4> o0;
    #pragma unroll
    for (int e = 0; e < 4; ++e) {
      const idx i = i0 + e;
      o0.at[e] = v1;
    }
    store_pack<4>(b0 + i0, o0);
  }
  for (idx q = thread; q < rows - packed; q += blocks * 256) {
    const idx i = q + packed;
    b0[i] = v1;
  }
}
extern "C" __global__ void __launch_bounds__(256) cast_c79007641805(float* __restrict__ b0, const idx rows) {
  cast_c79007641805_rows(b0, rows, blockIdx.x, gridDim.x);
}

// launch: 264 blocks of 512 threads, 100544 bytes of shared memory
// _finish: 1 blocks of 256 threads, 0 bytes of shared memory
extern "C" __global__ void __launch_bounds__(512) max_subtract_exp_sum_log_checked_labels_take_alo_43b384361143(const bf16* __restrict__ b0, bf16* __restrict__ b1, const float* __restrict__ b2, const i32* __restrict__ b3, float* __restrict__ b4, double* __restrict__ t1, const idx rows, i64* status) {
  const idx part = blockIdx.x;
  const int lane = threadIdx.x;
  DYNAMIC_SHARED(chip);
  bf16* r0 = (bf16*)(chip + 0);
  double a2 = 0.0;
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
      #pragma unroll
      for (int e = 0; e < 8; ++e) {
        const idx j = j0 + e;
        const float v1 = wide(p0.at[e]);
        a0 = Max::of(a0, v1);
      }
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
    const i32 v10 = b3[i];
    const i64 v11 = (i64)v10;
    const bool v12 = v11 >= 0ll;
    const bool v13 = v11 < 50257ll;
    const bool v14 = (bool)(v12 & v13);
    if (!v14) fail(status, 1, (i64)v11);
    const i64 v15 = v14 ? v11 : 0ll;
    const i32 v16 = (i32)v15;
    const i64 v17 = (i64)v16;
    const bool v18 = v17 >= -50257ll;
    const bool v19 = v17 < 50257ll;
    const bool v20 = (bool)(v18 & v19);
    if (!v20) fail(status, 2, (i64)v17);
    const i64 v21 = v20 ? v17 : 0ll;
    const bool v22 = v21 < 0ll;
    const i64 v23 = wrap_add(v21, 50257ll);
    const i64 v24 = v22 ? v23 : v21;
    const float v25 = wide(b0[(idx)v24 + i * 50257]);
    const float v26 = v25 - a0;
    const float v27 = v9 - v26;
    const float v28 = wide(As<bf16>::of(v27));
    const double v29 = (double)v28;
    if (lane == 0) {
      a2 += v29;
    }
    const float v30 = b2[i];
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
        const float v34 = v33 / a1;
        const i64 v35 = (i64)(j);
        const bool v36 = v11 == v35;
        const float v37 = (float)v36;
        const float v38 = v34 - v37;
        const float v39 = v30 * v38;
        const float v40 = wide(As<bf16>::of(v39));
        o0.at[e] = As<bf16>::of(v40);
      }
      store_pack<8>(b1 + i * 50257 + j0, o0);
    }
    for (idx q = lane; q < 50257 - packed; q += 512) {
      const idx j = q < head ? q : q + packed;
      const float v41 = wide(r0[pad + j]);
      const float v42 = v41 - a0;
      const float v43 = expf(v42);
      const float v44 = v43 / a1;
      const i64 v45 = (i64)(j);
      const bool v46 = v11 == v45;
      const float v47 = (float)v46;
      const float v48 = v44 - v47;
      const float v49 = v30 * v48;
      const float v50 = wide(As<bf16>::of(v49));
      b1[i * 50257 + j] = As<bf16>::of(v50);
    }
    team_sync<512, 512>();  // columns have other owners in the next row
  }
  a2 = team_reduce<Add, 512, 512>(a2);
  if (threadIdx.x == 0) {
    t1[part] = a2;
  }
}
extern "C" __global__ void __launch_bounds__(256) max_subtract_exp_sum_log_checked_labels_take_alo_43b384361143_finish(const bf16* __restrict__ b0, bf16* __restrict__ b1, const float* __restrict__ b2, const i32* __restrict__ b3, float* __restrict__ b4, double* __restrict__ t1, const idx rows, i64* status) {
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
    b4[0] = v2;
  }
}

// launch: 1 blocks of 256 threads, 0 bytes of shared memory
static DEVICE void cast_544ae9f3ec30_rows(bf16* __restrict__ b0, const float* __restrict__ b1, const idx rows, idx block, idx blocks) {
  const idx thread = block * 256 + threadIdx.x;
  const float v1 = b1[0];
  const float v2 = v1 / 8192.0f;
  const float v3 = wide(As<bf16>::of(v2));
  for (idx i = thread; i < rows; i += blocks * 256) {
    b0[0] = As<bf16>::of(v3);
  }
}
extern "C" __global__ void __launch_bounds__(256) cast_544ae9f3ec30(bf16* __restrict__ b0, const float* __restrict__ b1, const idx rows) {
  cast_544ae9f3ec30_rows(b0, b1, rows, blockIdx.x, gridDim.x);
}
