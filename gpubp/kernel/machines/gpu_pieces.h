// A call in pieces: where more networks train than fit on a GPU at once, each piece is a part of the call's steps, and
// all networks take their first piece before their second. Blocks that end last are then short, and the GPU idles less
// (engines/pieces.py). Different blocks take the pieces of a network and wait for their turn: End.turn counts those
// that are done, and is 0 again after the last. One thread waits and passes the turn for all; around it they meet at a
// barrier. Blocks begin in the order of their numbers, so none waits for one that cannot begin: CUDA does not promise
// this order, GPUs keep it, and CUB's scans rely on it too (NVIDIA/cub#245).
#pragma once

FN void wait_for_turn(const int64_t *turn, int64_t piece) {
#ifdef __CUDACC__
  int64_t done;
  do asm volatile("ld.acquire.gpu.global.s64 %0, [%1];" : "=l"(done) : "l"(turn) : "memory");
  while (done != piece);
#else
  play_wait(turn, piece);
#endif
}

FN void pass_turn(int64_t *turn, int64_t done) {
#ifdef __CUDACC__
  __threadfence();
  asm volatile("st.release.gpu.global.s64 [%0], %1;" ::"l"(turn), "l"(done) : "memory");
#else
  play_pass(turn, done);
#endif
}
