// launch: 160 blocks of 256 threads, 0 bytes of shared memory
extern "C" __global__ void __launch_bounds__(256) add_2bdbaf139ab7(float* b0, const float* __restrict__ b1, const float* b2, const idx rows) {
  __shared__ float tile0[32][33];
  const idx across = 16;
  const idx tiles = (rows + 31) / 32 * across;
  const int x = threadIdx.x % 32, y = threadIdx.x / 32;
  for (idx t = blockIdx.x; t < tiles; t += gridDim.x) {
    const idx i0 = t / across * 32, j0 = t % across * 32;
    for (int k = y; k < 32; k += 8) {
      const idx i = i0 + x, j = j0 + k;
      if (i < rows && j < 512) {
        tile0[k][x] = b1[i + j * 300];
      }
    }
    __syncthreads();
    for (int k = y; k < 32; k += 8) {
      const idx i = i0 + k, j = j0 + x;
      if (i < rows && j < 512) {
        const float v1 = tile0[x][k];
        const float v2 = b2[i * 512 + j];
        const float v3 = v1 + v2;
        b0[i * 512 + j] = v3;
      }
    }
    __syncthreads();
  }
}
