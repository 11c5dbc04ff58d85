// launch: 4096 blocks of 256 threads, 0 bytes of shared memory
extern "C" __global__ void __launch_bounds__(256) multiply_add_power_tanh_sigmoid_593e06b01ab5(float* b0, const float* b1, const float* __restrict__ b2, const float* __restrict__ b3, const idx rows) {
  const int x = threadIdx.x, y = 0;
  const idx part = blockIdx.x / 4, parts = gridDim.x / 4;
  const idx j0 = (blockIdx.x % 4 * 256 + x) * 4;
  const idx end = rows;
  Pack<float, 4> c0;
  if (end > 0) c0 = load_pack<4>(b3 + j0);
  Pack<float, 4> c1;
  if (end > 0) c1 = load_pack<4>(b2 + j0);
  for (idx i0 = part * 4 + y; i0 < end; i0 += parts * 4) {
    Pack<float, 4> p0[4];
    #pragma unroll
    for (int u = 0; u < 4; ++u) {
      const idx i = i0 + u;
      if (i < end) {
        p0[u] = load_pack<4>(b1 + i * 4096 + j0);
      }
    }
    #pragma unroll
    for (int u = 0; u < 4; ++u) {
      const idx i = i0 + u;
      if (i < end) {
        Pack<float, 4> o0;
        #pragma unroll
        for (int e = 0; e < 4; ++e) {
          const idx j = j0 + e;
          const float v1 = p0[u].at[e];
          const float v2 = c1.at[e];
          const float v3 = v1 * v2;
          const float v4 = c0.at[e];
          const float v5 = v3 + v4;
          const float v6 = v5 * 0.5f;
          const float v7 = v5 * v5;
          const float v8 = v7 * v5;
          const float v9 = v8 * 0.044715f;
          const float v10 = v5 + v9;
          const float v11 = v10 * 0.8f;
          const float v12 = tanhf(v11);
          const float v13 = v12 + 1.0f;
          const float v14 = v6 * v13;
          const float v15 = sigmoid(v1);
          const float v16 = v14 * v15;
          const float v17 = v16 + v1;
          o0.at[e] = v17;
        }
        store_pack<4>(b0 + i * 4096 + j0, o0);
      }
    }
  }
}
