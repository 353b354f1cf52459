// Of gpu_block.h, where matrices are in global memory (STREAMED): the product. The block computes its result tile by
// tile (BLOCK_TILES); what a tile needs of A and B comes to shared memory in strips, DEPTH of k at once, through a ring
// of STAGES places: while the threads multiply one strip, the next ones are on their way. Sums have the order of k. The
// blocks of a team take the tiles in turn.
#pragma once

constexpr int odd_pitch(int width) { return (cdiv(width, PITCH_UNIT) | 1) * PITCH_UNIT; }
constexpr int across_pitch(int width) { return TF32 ? odd_pitch(width) : pad(width); }  // of a strip with k across rows
constexpr int ALONG_PITCH = odd_pitch(DEPTH);                                           // and of one along them

// Copies `rows` rows of `columns` entries of a matrix that has `most_rows` and `most_columns`, from (row, column) on;
// beyond the matrix's end its last numbers again, which belong to sums that no thread owns.
template <int rows, int columns, int pitch, int most_rows, int most_columns, int width, class View>
FN void copy_strip(entry *to, const View &from, int row, int column) {
  constexpr int per_row = cdiv(columns, width), last = (cdiv(most_columns, width) - 1) * width;
  constexpr int side_by_side = per_row < THREADS ? per_row : THREADS, apart = THREADS / side_by_side;
  const int first = RANK / side_by_side;  // of the rows that this thread copies, `apart` each
  if (apart * side_by_side < THREADS && first >= apart) return;
  auto copy_row = [&](entry *to, const View &source, int i) {
    if (rows % apart == 0 || first + i < rows)
      begin_copy<width * sizeof(real)>(
          to + i * pitch, source.row(most_rows % rows ? min_of(row + first + i, most_rows - 1) : i));
  };
  UNROLL for (int j = RANK % side_by_side; j < per_row; j += side_by_side) {
    const int in_column = most_columns % columns ? min_of(column + j * width, last) : column + j * width;
    const View source = from.from(most_rows % rows ? 0 : row + first, in_column);
    entry *to_first = to + first * pitch + j * width;
    if constexpr (width == 1) NO_UNROLL for (int i = 0; i < rows; i += apart) copy_row(to_first, source, i);
    else UNROLL for (int i = 0; i < rows; i += apart) copy_row(to_first, source, i);
  }
}

// A strip of a matrix (most_rows, most_columns) in shared memory: `rows` of its rows, and `columns` of its columns, as
// they lie in memory. pitch: from a row of it to the next; turned: the same of a Transposed, whose columns are rows.
template <class View, int rows, int columns, int most_rows, int most_columns, int pitch, int turned>
struct Strip {
  typedef Matrix<pitch> InShared;
  static constexpr int entries = rows * pitch;
  INLINE void operator()(entry *to, const View &from, int row, int column) const {
    if (from.aligned()) copy_strip<rows, columns, pitch, most_rows, most_columns, PITCH_UNIT>(to, from, row, column);
    else copy_strip<rows, columns, pitch, most_rows, most_columns, 1>(to, from, row, column);
  }
};
template <class View, int rows, int columns, int most_rows, int most_columns, int pitch, int turned>
struct Strip<Transposed<View>, rows, columns, most_rows, most_columns, pitch, turned> {
  typedef Strip<View, columns, pad(rows), most_columns, most_rows, turned, pitch> InMemory;
  typedef Transposed<Matrix<turned>> InShared;
  static constexpr int entries = InMemory::entries;
  INLINE void operator()(entry *to, const Transposed<View> &from, int row, int column) const {
    InMemory()(to, from.view, column, row);
  }
};
// Of A (M, K), `rows` rows; of B (K, N), `columns` columns: DEPTH of k.
template <int M, int K, int rows, class View>
using LeftStrip = Strip<View, rows, DEPTH, M, K, ALONG_PITCH, across_pitch(rows)>;
template <int K, int N, int columns, class View>
using RightStrip = Strip<View, DEPTH, columns, K, N, across_pitch(columns), ALONG_PITCH>;

// A block's tile of the product, from (row, column) on: a Fragment that all threads share.
template <int M, int N, bool exact, class Sums>
struct BlockTile {
  Sums &sums;
  int row, column;
  bool whole;
  template <class F>
  INLINE void for_each(const F &f) const {
    sums.for_each([&](int m, int n, v &sum) {
      if (has(m, n)) f(row + m, column + n, sum);
    });
  }
  template <class Read, class F>
  INLINE void operator()(const ForEachSum<Read, F> &epilogue) const {
    if (exact || whole) finish<true>(epilogue);
    else finish<false>(epilogue);
  }

 private:
  INLINE bool has(int m, int n) const { return exact || (row + m < M && column + n < N); }
  template <bool all_exist, class Read, class F>
  INLINE void finish(const ForEachSum<Read, F> &epilogue) const {
    sums.for_each_tile([&](const auto &tile) {
      read_ahead(tile, [&](int m, int n, const auto &f) {
        if (all_exist || has(m, n)) f(row + m, column + n);
      }, epilogue);
    });
  }
};
template <class Sums, class Tile>
FN void begin_with(const Zeros &, Sums &sums, Tile &) {
  sums.set_to_zero();
}
template <int pitch, class Sums, class Tile>
FN void begin_with(const Matrix<pitch> &c, Sums &sums, Tile &tile) {
  sums.set_to_zero();
  tile.for_each([&](int m, int n, v &sum) { sum = c.read(m, n); });
}

template <int M, int N, int K, class A, class B, class C, class Epilogue>
FN void product(const A &a, const B &b, const C &c, const Epilogue &epilogue) {
  constexpr int shape = place_in(BLOCK_TILES, M, pad(N) / ENTRIES_PER_V, K);
  static_assert(shape >= 0, "engines/plan.py has no tile for this product");
  constexpr int rows = BLOCK_TILES[shape].rows, columns = BLOCK_TILES[shape].cols * ENTRIES_PER_V;
  constexpr int down = cdiv(M, rows), across = cdiv(N, columns), tail = K % DEPTH, strips = cdiv(K, DEPTH);
  constexpr bool exact = M % rows == 0 && pad(N) % columns == 0;
  typedef LeftStrip<M, K, rows, A> Left;
  typedef RightStrip<K, N, columns, B> Right;
  static_assert(Left::entries + Right::entries <= STAGE_ENTRIES, "engines/plan.py counts otherwise");
  entry *ring = (entry *)((char *)shared + RING_AT);
  // to_fetch, row, column, k: of the strips to fetch next; stage: where they go; now: the stage to multiply next.
  int to_fetch = BLOCK_OF_TEAM, row = to_fetch % down * rows, column = to_fetch / down * columns;
  int k = 0, stage = 0, now = 0;
  auto fetch = [&] {
    if (to_fetch < down * across) {
      entry *to = ring + stage * STAGE_ENTRIES;
      Left()(to, a, row, k);
      Right()(to + Left::entries, b, k, column);
      stage = stage + 1 == STAGES ? 0 : stage + 1;
      k += DEPTH;
      if (k >= K) {
        k = 0, to_fetch += BLOCKS_PER_TEAM;
        row = to_fetch % down * rows, column = to_fetch / down * columns;
      }
    }
    commit_copies();
  };
  NO_UNROLL for (int i = 0; i < STAGES - 1; i++) fetch();
  ProductSums<rows, columns, DEPTH, A::transposed, B::transposed> sums;
  auto multiply = [&](auto depth) {
    wait_for_copies_but<STAGES - 2>();
    __syncthreads();
    fetch();
    const entry *from = ring + now * STAGE_ENTRIES;
    now = now + 1 == STAGES ? 0 : now + 1;
    sums.template add<depth.value>(typename Left::InShared{from}, typename Right::InShared{from + Left::entries});
  };
  NO_UNROLL for (int tile = BLOCK_OF_TEAM; tile < down * across; tile += BLOCKS_PER_TEAM) {
    const int first_row = tile % down * rows, first_column = tile / down * columns;
    const bool whole = first_row + rows <= M && first_column + columns <= pad(N);
    const BlockTile<M, N, exact, decltype(sums)> of_block = {sums, first_row, first_column, whole};
    begin_with(c, sums, of_block);
    NO_UNROLL for (int strip = 0; strip < strips - (tail > 0); strip++) multiply(constant<DEPTH>());
    if constexpr (tail > 0) multiply(constant<tail>());
    of_block(epilogue);
  }
  wait_for_copies();
  BARRIER
}

// The gradients of biases: sums down the columns of B, which is read where it is, some rows ahead of their sum.
template <int M, int N, int K, class B, class C, class Epilogue>
FN void product(const Ones &, const B &b, const C &c, const Epilogue &epilogue) {
  constexpr int ahead = min_of(K, READ_AHEAD_BYTES / (int)sizeof(v) * 2);
  PARALLEL_FOR(item, pad(N) / ENTRIES_PER_V) {
    const int column = item * ENTRIES_PER_V;
    v sum = c.read(0, column);
    auto add = [&](int k, auto count) {
      v found[count.value];
      UNROLL for (int i = 0; i < count.value; i++) found[i] = b.read(k + i, column);
      UNROLL for (int i = 0; i < count.value; i++) sum = sum + found[i];
    };
    NO_UNROLL for (int k = 0; k < K / ahead * ahead; k += ahead) add(k, constant<ahead>());
    if constexpr (K % ahead) add(K / ahead * ahead, constant<K % ahead>());
    epilogue(SingleSum{0, column, sum});
  }
  BARRIER
}
