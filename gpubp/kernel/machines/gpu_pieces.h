// Which networks a block trains, and which of their steps. A part of a call is a block of networks, all of their steps;
// or, of the last ones, where more train than fit on a GPU at once, a share, so that no block ends long after another
// (engines/pieces.py). Networks are then cut into pieces, parts of their steps, of which End.turn counts those that are
// done; it is 0 again after the last one.
//
// CUDA does not promise in which order blocks begin, nor that all run before one ends: other kernels may keep their
// places. So blocks take the parts in the order in which they come, by a counter in global memory, and a piece waits
// only for one of a part that was taken before: whose block runs, and waits for none or for one taken before that. So
// all come to their end. The last number that is taken sets the counter to 0 again, for the next call.
#pragma once

#ifdef __CUDACC__
FN void wait_for_turn(const int64_t *turn, int64_t piece) {
  int64_t done;
  do asm volatile("ld.acquire.gpu.global.s64 %0, [%1];" : "=l"(done) : "l"(turn) : "memory");
  while (done != piece);
}
FN void pass_turn(int64_t *turn, int64_t done) {
  __threadfence();
  asm volatile("st.release.gpu.global.s64 [%0], %1;" ::"l"(turn), "l"(done) : "memory");
}
#endif

// The next number of those up to `last` or, without a counter, `otherwise`. scratch: in the block's shared memory.
template <class End>
FN unsigned take_part(const End &end, unsigned last, unsigned otherwise, unsigned *scratch) {
  if (!end.tickets) return otherwise;
  __syncthreads();
  if (!threadIdx.x) *scratch = atomicInc(end.tickets, last);
  __syncthreads();
  const unsigned part = *scratch;
  __syncthreads();
  return part;
}

template <class End>
FN void begin_piece(const End &end, int64_t block, int64_t piece) {
  if (piece && !threadIdx.x) wait_for_turn(end.turn + block, piece);
  __syncthreads();
}
template <class End>
FN void end_piece(const End &end, int64_t block, int64_t done) {
  __syncthreads();
  if (!threadIdx.x) pass_turn(end.turn + block, done);
}

// If a block has one part: f(block of networks, how many steps). A share is a piece of a block of networks; all that
// are cut have their first piece before any has its second.
template <class End, class F>
FN void one_piece(const End &end, int64_t steps, unsigned blocks, unsigned *scratch, const F &f) {
  unsigned part = take_part(end, gridDim.x - 1, blockIdx.x, scratch);
  const unsigned whole = (unsigned)end.whole;
  auto block = [&] { return part < whole ? part : whole + (part - whole) % (blocks - whole); };
  auto piece = [&] { return part < whole ? 0 : (part - whole) / (blocks - whole); };
  const int64_t rest = steps - piece() * end.share;
  if (part >= whole) begin_piece(end, block(), piece());
  f(block(), part >= whole && end.share < rest ? end.share : rest);
  asm volatile("" : "+r"(part));  // what follows is computed again: to keep it would take registers from f
  if (part >= whole) end_piece(end, block(), (piece() + 1) * end.share < steps ? piece() + 1 : 0);
}

// If blocks take one part after the other, each once more than it gets: f(block of networks, how many steps) for each
// piece of this block. The steps of all networks, one's after the other's, are a line; shares are equal parts of it, as
// long as a network's steps or longer. A share takes its networks from the last to the first: it begins with the first
// piece of one, and ends with the second piece of another, with whose first one the share before began.
struct Steps {
  int64_t begin, until;
};
template <class End>
FN Steps steps_of_piece(const End &end, unsigned part, unsigned block, int64_t steps, int64_t blocks) {
  const bool whole = part < end.whole;
  const int64_t begin = (whole ? part * steps : end.whole * steps + (part - end.whole) * end.share) - block * steps;
  const int64_t until = begin + (whole ? steps : end.share), last = (blocks - block) * steps;
  return {begin, until < last ? until : last};  // as the part has them: below 0, if it has other blocks before
}
template <class End, class F>
FN void for_each_piece(const End &end, int64_t steps, int64_t blocks, unsigned *scratch, const F &f) {
  const unsigned grid = gridDim.x / BLOCKS_PER_TEAM, last = (unsigned)end.parts + grid - 1;
  unsigned part = take_part(end, last, blockIdx.x / BLOCKS_PER_TEAM, scratch);
  NO_UNROLL while (part < end.parts) {
    auto piece_of = [&](unsigned block) { return steps_of_piece(end, part, block, steps, blocks); };
    unsigned block = part < end.whole ? part : (unsigned)((piece_of(0).until - 1) / steps);
    NO_UNROLL for (bool more = true; more; block--) {
      const Steps piece = piece_of(block);
      const int64_t first = piece.begin > 0 ? piece.begin : 0, beyond = piece.until < steps ? piece.until : steps;
      if (beyond - first < steps) begin_piece(end, block, first > 0);
      f(block, beyond - first);
      asm volatile("" : "+r"(part), "+r"(block));  // as above
      const Steps done = piece_of(block);
      if (done.begin > 0 || done.until < steps) end_piece(end, block, done.begin <= 0);
      more = done.begin < 0;
    }
    part = take_part(end, last, part + grid, scratch);
  }
}
