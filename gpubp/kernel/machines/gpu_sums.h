// Of gpu_block.h, where lanes are outputs: the product, which reads 16 bytes at once, and whose sums a thread keeps for
// as long as they are needed, those of gradients for a whole step. PITCH is an odd number of v, so that the rows that
// neighbouring threads read lie in different banks; of a single column 1, so that a v of it is read at once.
#pragma once

// The rows of a tile: blocks of neighbours, `tile` rows in all, as far apart as there are tiles. Beyond the end it
// reads the last block, and owns nothing.
template <int size, int tile, int block>
struct StridedBlocks {
  static constexpr int blocks = cdiv(size, block), tiles = cdiv(blocks, tile / block);
  static constexpr int neighbours = block;
  static constexpr bool exact = size % tile == 0;
  int item;
  INLINE StridedBlocks(int item) : item(item) {}
  INLINE int first() const { return item * block; }
  INLINE int beyond_first(int i) const {  // of row i: a constant, if sizes divide
    const int apart = i / block * tiles;
    return ((exact ? apart : min_of(item + apart, blocks - 1) - item)) * block + i % block;
  }
  INLINE int operator[](int i) const { return first() + beyond_first(i); }
  INLINE bool owns(int i) const { return exact || (item + i / block * tiles) * block + i % block < size; }
};

// The tile of an item: squares of two by two tiles one after the other, so that threads n and n ^ 1 read the same of
// one matrix, and n and n ^ 2 of the other. Shared memory reads 16 bytes for two such threads at once. Of eight rows of
// tiles the even ones come first: the four by two tiles of eight threads then lie in different banks.
struct TileAt {
  int row, column;
};
template <int down, int across>
FN TileAt tile_at(int item) {
  constexpr int height = down % 2 ? 1 : 2, width = across % 2 ? 1 : 2;
  const int square = item / (height * width), squares_down = down / height;
  const int row = item / width % height + height * (square % squares_down);
  const int column = item % width + width * (square / squares_down);
  return {down % 8 ? row : row / 8 * 8 + row % 4 * 2 + row / 4 % 2, column};
}

// Entries (rows, k), ..., (rows, k + count - 1) of A, where k is 0: rows lie along k or, transposed, across it.
template <int count, int rows, int deep, class Rows, int pitch>
FN void read_left(real (&left)[rows][deep], const Rows &at, const Matrix<pitch> &a) {
  UNROLL for (int m = 0; m < rows; m++) {
    const v along = a.read(at.beyond_first(m), 0);
    UNROLL for (int k = 0; k < count; k++) left[m][k] = along.part[k];
  }
}
template <int count, int rows, int deep, class Rows, class View>
FN void read_left(real (&left)[rows][deep], const Rows &at, const Transposed<View> &a) {
  typedef Neighbours<Rows::neighbours> some;
  UNROLL for (int k = 0; k < count; k++)
    UNROLL for (int m = 0; m < rows; m += Rows::neighbours) {
      const some along = *(const some *)a.view.from(k, at.beyond_first(m)).p;
      UNROLL for (int j = 0; j < Rows::neighbours; j++) left[m + j][k] = along.part[j];
    }
}
template <int count, int rows, int deep, class Rows>
FN void read_left(real (&left)[rows][deep], const Rows &, const Ones &) {
  UNROLL for (int m = 0; m < rows; m++) UNROLL for (int k = 0; k < count; k++) left[m][k] = 1;
}
// Entries (0, columns), ..., (count - 1, columns) of B.
template <int count, int columns, int deep, class Columns, int pitch>
FN void read_right(v (&right)[deep][columns], const Columns &at, const Matrix<pitch> &b) {
  UNROLL for (int k = 0; k < count; k++)
    UNROLL for (int n = 0; n < columns; n++) right[k][n] = b.read(k, at.beyond_first(n) * ENTRIES_PER_V);
}
template <int count, int columns, int deep, class Columns, class View>
FN void read_right(v (&right)[deep][columns], const Columns &at, const Transposed<View> &b) {
  UNROLL for (int n = 0; n < columns; n++)
    UNROLL for (int j = 0; j < ENTRIES_PER_V; j++) {
      const v along = b.view.read(at.beyond_first(n) * ENTRIES_PER_V + j, 0);
      UNROLL for (int k = 0; k < count; k++) right[k][n].part[j] = along.part[k];
    }
}

constexpr int READ_AHEAD_BYTES = 128;  // that an epilogue reads into a thread's registers before it goes on
// The epilogue of a tile, which reads for several sums before it treats the first: a load takes long, and may not
// overtake the stores before it. placed(row, column, f) calls f with a sum's place in the product, if it is in it.
template <class Rows, class Columns, int tile_rows, int tile_columns, class Placed, class Read, class F>
INLINE void read_ahead(
    const Fragment<Rows, Columns, tile_rows, tile_columns> &tile, const Placed &placed,
    const ForEachSum<Read, F> &epilogue) {
  typedef decltype(epilogue.read(0, 0)) Found;
  constexpr int count = tile_rows * tile_columns, ahead = max_of(1, READ_AHEAD_BYTES / (int)sizeof(Found));
  UNROLL for (int begin = 0; begin < count; begin += ahead) {
    Found found[ahead];
    auto each = [&](int i, const auto &f) {
      const int m = (begin + i) / tile_columns, n = (begin + i) % tile_columns;
      if (begin + i < count && tile.rows.owns(m) && tile.columns.owns(n))
        placed(tile.rows[m], tile.columns[n] * ENTRIES_PER_V, [&](int row, int column) {
          f(row, column, tile.sum[m][n]);
        });
    };
    UNROLL for (int i = 0; i < ahead; i++)
      each(i, [&](int row, int column, v &) { found[i] = epilogue.read(row, column); });
    UNROLL for (int i = 0; i < ahead; i++)
      each(i, [&](int row, int column, v &sum) { epilogue.f(row, column, sum, found[i]); });
  }
}

// What a thread has of the sums of a product: those of its tiles, `rounds` of them. sharing: how many threads have a
// tile together, each some of its sums: which ones, Rows and Columns tell.
template <class Rows, class Columns, int rows, int columns, int sharing>
struct TilesOfSums {
  static constexpr int tile_rows = rows, tile_columns = columns;
  static constexpr int items = Rows::tiles * Columns::tiles, at_once = THREADS / sharing, rounds = cdiv(items, at_once);
  v sum[rounds][tile_rows][tile_columns];

  template <class F>
  INLINE void for_each_tile(const F &f) {
    UNROLL for (int round = 0; round < rounds; round++) {
      const int item = RANK / sharing + round * at_once;
      if (items % at_once == 0 || item < items) {
        const TileAt at = tile_at<Rows::tiles, Columns::tiles>(item);
        f(Fragment<Rows, Columns, tile_rows, tile_columns>{at.row, at.column, sum[round]});
      }
    }
  }
  template <class F>
  INLINE void for_each(const F &f) {  // as Fragment's
    for_each_tile([&](const auto &tile) { tile.for_each(f); });
  }
  template <class Read, class F>
  INLINE void finish(const ForEachSum<Read, F> &epilogue) {
    for_each_tile([&](const auto &tile) {
      if constexpr (TF32) read_ahead(tile, [](int row, int column, const auto &f) { f(row, column); }, epilogue);
      else epilogue(tile);
    });
  }
  INLINE void set_to_zero() {
    for_each_tile([](const auto &tile) {
      UNROLL for (int m = 0; m < tile_rows; m++)
        UNROLL for (int n = 0; n < tile_columns; n++) tile.sum[m][n] = splat<v>(0);
    });
  }
};

template <int M, int N, int K>
struct ShapeOf {  // of a thread's part of a product's tile
  static constexpr int columns_of_v = pad(N) / ENTRIES_PER_V, shape = place_in(TILES, M, columns_of_v, K);
  static_assert(shape >= 0, "engines/plan.py has no tile for this product");
  static constexpr int rows = TILES[shape].rows, columns = TILES[shape].cols;
};
// How many rows of a tile are neighbours: A_transposed, as many as one load can read; else two, if of four tiles below
// each other the same rows then lie in different banks, as in tile_at() of eight.
template <int M, int rows, bool A_transposed>
constexpr int neighbours_in_tile() {
  if (A_transposed && rows % ENTRIES_PER_V == 0) return ENTRIES_PER_V;
  return rows % 2 == 0 && (A_transposed || (M % 2 == 0 && cdiv(M, rows) == 4)) ? 2 : 1;
}
template <int M, int N, int K, bool A_transposed, class Shape = ShapeOf<M, N, K>>
using TilesOfThreads = TilesOfSums<
    StridedBlocks<M, Shape::rows, neighbours_in_tile<M, Shape::rows, A_transposed>()>,
    StridedBlocks<Shape::columns_of_v, Shape::columns, 1>, Shape::rows, Shape::columns, 1>;

// The sums of a product (M, K) @ (K, N), where a tile is a thread's. A_transposed: rows are read as v.
template <int M, int N, int K, bool A_transposed>
struct Sums : TilesOfThreads<M, N, K, A_transposed> {
  using TilesOfThreads<M, N, K, A_transposed>::tile_rows;
  using TilesOfThreads<M, N, K, A_transposed>::tile_columns;

  template <int depth = K, class A, class B>  // `depth` of k
  INLINE void add(const A &a, const B &b) {
    this->for_each_tile([&](const auto &tile) { add_to<depth>(tile, a, b); });
  }

 private:
  template <int depth, class Tile, class A, class B>
  INLINE static void add_to(const Tile &tile, const A &whole_a, const B &whole_b) {
    constexpr int deep = !A::transposed || B::transposed ? ENTRIES_PER_V : 1, parts = min_of(N, ENTRIES_PER_V);
    [[maybe_unused]] constexpr bool small = tile_rows * tile_columns == 1;  // then more of k hide the loads' latency
    A a = whole_a.from(tile.rows.first(), 0);
    B b = whole_b.from(0, tile.columns.first() * ENTRIES_PER_V);
    auto add_some = [&](auto count) {
      real left[tile_rows][deep];
      v right[deep][tile_columns];
      read_right<count.value>(right, tile.columns, b);
      read_left<count.value>(left, tile.rows, a);
      UNROLL for (int m = 0; m < tile_rows; m++)
        UNROLL for (int k = 0; k < count.value; k++)
          UNROLL for (int n = 0; n < tile_columns; n++)
            UNROLL for (int j = 0; j < parts; j++)
              tile.sum[m][n].part[j] = fma_(left[m][k], right[k][n].part[j], tile.sum[m][n].part[j]);
      a = a.from(0, count.value), b = b.from(count.value, 0);
    };
#ifdef __CUDACC__
#pragma unroll (small ? 16 / deep : deep == 1 ? 4 : 1)
#endif
    for (int k = 0; k < depth / deep; k++) add_some(constant<deep>());
    if constexpr (depth % deep) add_some(constant<depth % deep>());
  }
};

// The sums of columns, which threads have one by one: a v of them would be a few threads' work.
template <int N>
struct ColumnSums {
  real sum[cdiv(N, THREADS)];

  template <class F>
  INLINE void for_each(const F &f) {  // f(column, sum)
    UNROLL for (int round = 0; round < cdiv(N, THREADS); round++) {
      const int column = RANK + round * THREADS;
      if (N % THREADS == 0 || column < N) f(column, sum[round]);
    }
  }
  INLINE void set_to_zero() {
    UNROLL for (int round = 0; round < cdiv(N, THREADS); round++) sum[round] = 0;
  }
  template <int rows, int pitch>
  INLINE void add(const Matrix<pitch> &matrix) {
    for_each([&](int column, real &sum) {
#ifdef __CUDACC__
#pragma unroll 16
#endif
      for (int k = 0; k < rows; k++) sum = sum + matrix.p[k * pitch + column];
    });
  }
};

#if TF32
#include "machines/gpu_tensor.h"
#else
template <int M, int N, int K, bool A_transposed, bool B_transposed>
using ProductSums = Sums<M, N, K, A_transposed>;
#endif

#if !STREAMED
template <int M, int N, int K, class A, class B, class Epilogue>
FN void product(const A &a, const B &b, const Zeros &, const Epilogue &epilogue) {
  ProductSums<M, N, K, A::transposed, B::transposed> sums;
  sums.set_to_zero();
  sums.add(a, b);
  sums.finish(epilogue);
  BARRIER
}
#endif
