// launch: 7 blocks of 256 threads, 0 bytes of shared memory
extern "C" __global__ void __launch_bounds__(256) multiply_tanh_sum_3df4911da034(const float* __restrict__ b0, float* __restrict__ b1, const idx rows) {
  const int lane = threadIdx.x % 16, team = threadIdx.x / 16;
  for (idx i = blockIdx.x * 16 + team; i < rows; i += gridDim.x * 16) {
    const idx packed = 64;
    float a0 = 0.0f;                                                      // test_golden.py:+5
    for (idx q = lane * 4; q < packed; q += 16 * 4) {
      const idx j0 = q;
      const auto p0 = load_pack<4>(b0 + i * 64 + j0);
      #pragma unroll
      for (int e = 0; e < 4; ++e) {
        const idx j = j0 + e;
        const float v1 = p0.at[e];                                        // test_golden.py:+3
        const float v2 = v1 * 3.1415927f;
        const float v3 = tanhf(v2);                                       // test_golden.py:+4
        a0 += v3;                                                         // test_golden.py:+5
      }
    }
    a0 = team_reduce<Add, 16, 256>(a0);
    if (lane == 0) {
      b1[i] = a0;
    }
  }
}
