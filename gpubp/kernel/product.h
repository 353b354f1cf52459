// The matrix product: C(m, n) + sum over k of A(m, k) B(k, n), k in order, each sum of which is handed to an epilogue.
//
// A, B and C are views, which say where entry (i, j) of a matrix is. The sums are computed in tiles, which are the
// independent items of the phase; TILES has the shape of least cost for every product or, in GPU_STREAMED, for the part
// of it that a block computes at once (engines/layout.py and stream.py choose it, plan.py lists it). The epilogue is
// called with a Fragment, the sums of one tile. A GENERAL kernel has a product of its own, whose tiles are of a few
// shapes and whose Fragment is one sum. A machine that multiplies in another way (wider loads, tensor cores) does so in
// its file of machines/; the last product below stays as the reference.
#pragma once

#if !LANES_ARE_OUTPUTS
FN v broadcast(const entry *p, int j) { return p[j]; }
FN v read(const entry *p, int j) { return p[j]; }
FN void write(entry *p, int j, v x) { p[j] = x; }
FN v as_v(per_network x) { return x; }
#endif

constexpr int pad(int width) { return cdiv(width, ENTRIES_PER_V) * ENTRIES_PER_V; }  // to whole v

// ---- views: of A entry (i, j) is broadcast to all lanes; of B and C a v is read, whose first entry is (i, j) ----
// transposed: whether neighbours in memory are neighbours in a column. from(i, j): the view that begins there.

#if GENERAL
struct Matrix {  // row after row, `pitch` entries from one row to the next
  static constexpr bool transposed = false, column = false;
  const entry *p;
  int pitch;
  INLINE v broadcast(int i, int j) const { return ::broadcast(p, i * pitch + j); }
  INLINE v read(int i, int j) const { return ::read(p, i * pitch + j); }
};
FN Matrix matrix(int pitch, const entry *p) { return {p, pitch}; }
FN void write_to(int pitch, entry *p, int i, int j, v x) { write(p, i * pitch + j, x); }
#else
template <int pitch>
struct Matrix {  // row after row, `pitch` entries from one row to the next; column: of single entries, in GPU_WIDE
  static constexpr bool transposed = false, column = pitch < ENTRIES_PER_V;
  const entry *p;
  INLINE v broadcast(int i, int j) const { return ::broadcast(p, i * pitch + j); }
  INLINE v read(int i, int j) const { return column ? broadcast(i, j) : ::read(p, i * pitch + j); }
  INLINE Matrix from(int i, int j) const { return {p + i * pitch + j}; }
  INLINE const entry *row(int i) const { return p + i * pitch; }
  INLINE bool aligned() const { return true; }  // whether rows begin at a v
};
template <int pitch>
FN Matrix<pitch> matrix(constant<pitch>, const entry *p) {
  return {p};
}
template <int pitch>
FN void write_to(constant<pitch>, entry *p, int i, int j, v x) {  // to (i, j) of such a matrix
  if constexpr (Matrix<pitch>::column) p[i * pitch + j] = *(const entry *)&x;
  else write(p, i * pitch + j, x);
}
#endif
template <class View>
struct Transposed;
template <class View>
FN Transposed<View> transposed(const View &view);
template <class View>
struct Transposed {
  static constexpr bool transposed = true;
  View view;
  INLINE v broadcast(int i, int j) const { return view.broadcast(j, i); }
  INLINE v read(int i, int j) const {
    static_assert(sizeof(View) && ENTRIES_PER_V == 1, "a v would be a column of the matrix: transpose_weight() first");
    return view.read(j, i);
  }
  INLINE auto from(int i, int j) const { return ::transposed(view.from(j, i)); }
};
template <class View>
FN Transposed<View> transposed(const View &view) {
  return {view};
}
template <int value>
struct Constant {
  static constexpr bool transposed = true;  // or not: it has no memory
  INLINE v broadcast(int, int) const { return splat<v>(value); }
  INLINE v read(int, int) const { return splat<v>(value); }
  INLINE Constant from(int, int) const { return {}; }
};
typedef Constant<0> Zeros;
typedef Constant<1> Ones;

// ---- which rows (or columns, counted in v) are in a tile: `tile` out of `size`, of the `item`th tile ----

#if !ON_GPU
// Neighbours. The last tile of a size that does not divide moves back, so that it reads nothing beyond the end; what it
// shares with the tile before it belongs to that one.
template <int size, int tile>
struct PlacesInTile {
  int begin, start;
  INLINE PlacesInTile(int item) : begin(item * tile), start(min_of(begin, size - tile)) {}
  INLINE int operator[](int i) const { return start + i; }
  INLINE bool owns(int i) const { return size % tile == 0 || start + i >= begin; }
};
#else
// item, item + tiles, item + 2 tiles, ...: so that neighbouring threads read neighbouring rows, which are in different
// banks of shared memory, since PITCH is odd there. Beyond the end a tile reads the last row, and owns nothing.
template <int size, int tile>
struct PlacesInTile {
  static constexpr int tiles = cdiv(size, tile);
  int item;
  INLINE PlacesInTile(int item) : item(item) {}
  INLINE int operator[](int i) const {
    return size % tile == 0 ? item + i * tiles : min_of(item + i * tiles, size - 1);
  }
  INLINE bool owns(int i) const { return size % tile == 0 || item + i * tiles < size; }
};
#endif

// The sums of one tile, which are in registers of the thread that computes them.
template <class Rows, class Columns, int tile_rows, int tile_columns>
struct Fragment {
  Rows rows;
  Columns columns;
  v (&sum)[tile_rows][tile_columns];
  template <class F>
  INLINE void for_each(const F &f) const {  // f(row, column of the first entry, sum)
    UNROLL for (int m = 0; m < tile_rows; m++)
      UNROLL for (int n = 0; n < tile_columns; n++)
        if (rows.owns(m) && columns.owns(n)) f(rows[m], columns[n] * ENTRIES_PER_V, sum[m][n]);
  }
};
struct SingleSum {  // a Fragment of one
  int row, column;
  v sum;
  template <class F>
  INLINE void for_each(const F &f) const {
    f(row, column, sum);
  }
};
struct Nothing {};
FN Nothing nothing(int, int) { return {}; }
// The epilogue that treats one sum after the other: f(row, column, sum, what read(row, column) found). No sum's f
// writes what another's reads, so that a machine may read for many before it treats the first.
template <class Read, class F>
struct ForEachSum {
  Read read;
  F f;
  template <class Fragment>
  INLINE void operator()(const Fragment &fragment) const {
    fragment.for_each([&](int row, int column, v sum) { f(row, column, sum, read(row, column)); });
  }
};
template <class Read, class F>
FN auto for_each_sum(Read read, F f) {
  return ForEachSum<Read, F>{read, f};
}
template <class F>
FN auto for_each_sum(F f) {
  return for_each_sum(nothing, [=](int row, int column, v sum, Nothing) { f(row, column, sum); });
}

#if GENERAL

// A tile has MOST_ROWS rows, or at the end of a column of tiles a half, a quarter ... of them. Its sums wait in memory
// for the epilogue, whose code is so compiled once, not for every shape.
constexpr int MOST_ROWS = VECTOR * sizeof(real) == 64 ? 8 : 4, MOST_COLUMNS = 3;
struct TileSums {
  v of[MOST_ROWS][MOST_COLUMNS];
};
template <int rows, int columns, class A, class B, class C>
static void sum_tile(TileSums &to, A a, B b, C c, int m, int n, int K) {
  v sum[rows][columns];
  UNROLL for (int i = 0; i < rows; i++)
    UNROLL for (int j = 0; j < columns; j++) sum[i][j] = c.read(m + i, (n + j) * ENTRIES_PER_V);
  for (int k = 0; k < K; k++) {
    v right[columns];
    UNROLL for (int j = 0; j < columns; j++) right[j] = hold(b.read(k, (n + j) * ENTRIES_PER_V));
    UNROLL for (int i = 0; i < rows; i++) {
      const v left = hold(a.broadcast(m + i, k));
      UNROLL for (int j = 0; j < columns; j++) sum[i][j] = fma_(left, right[j], sum[i][j]);
    }
  }
  UNROLL for (int i = 0; i < rows; i++) UNROLL for (int j = 0; j < columns; j++) to.of[i][j] = sum[i][j];
}
template <int rows, class... Rest>
FN int sum_rows(int left, int columns, TileSums &to, const Rest &...rest) {  // -> rows of the tile
  if constexpr (rows > 1)
    if (left < rows) return sum_rows<rows / 2>(left, columns, to, rest...);
  if (columns == 1) sum_tile<rows, 1>(to, rest...);
  else if (columns == 2) sum_tile<rows, 2>(to, rest...);
  else sum_tile<rows, 3>(to, rest...);
  return rows;
}
template <class A, class B, class C, class Epilogue>
FN void product(int M, int N, int K, const A &a, const B &b, const C &c, const Epilogue &epilogue) {
  const int across = pad(N) / ENTRIES_PER_V;
  TileSums sums;
  for (int n = 0; n < across; n += MOST_COLUMNS) {
    const int columns = min_of(across - n, MOST_COLUMNS);
    for (int m = 0, rows; m < M; m += rows) {
      rows = sum_rows<MOST_ROWS>(M - m, columns, sums, a, b, c, m, n, K);
      for (int i = 0; i < rows; i++)
        for (int j = 0; j < columns; j++) epilogue(SingleSum{m + i, (n + j) * ENTRIES_PER_V, sums.of[i][j]});
    }
  }
}

#else

template <class Table>  // TILES or BLOCK_TILES
constexpr int place_in(const Table &table, int m, int n, int k) {
  for (int at = 0; at < (int)(sizeof table / sizeof table[0]); at++)
    if (table[at].m == m && table[at].n == n && table[at].k == k) return at;
  return -1;
}

template <int M, int N, int K, class... Rest>
FN void product(constant<M>, constant<N>, constant<K>, const Rest &...rest) {
  product<M, N, K>(rest...);
}
#if !ON_GPU || LAYOUT == GPU_BLOCK
template <int M, int N, int K, class A, class B, class C, class Epilogue>
FN void product(const A &a, const B &b, const C &c, const Epilogue &epilogue) {
  constexpr int columns_of_v = pad(N) / ENTRIES_PER_V, shape = place_in(TILES, M, columns_of_v, K);
  static_assert(shape >= 0, "engines/plan.py has no tile for this product");
  constexpr int tile_rows = TILES[shape].rows, tile_columns = TILES[shape].cols;
  constexpr int tiles_down = cdiv(M, tile_rows), tiles_across = cdiv(columns_of_v, tile_columns);
  PARALLEL_FOR(item, tiles_down * tiles_across) {
    v sum[tile_rows][tile_columns];
    Fragment<PlacesInTile<M, tile_rows>, PlacesInTile<columns_of_v, tile_columns>, tile_rows, tile_columns> fragment = {
        item % tiles_down, item / tiles_down, sum};
    const auto &rows = fragment.rows;
    const auto &columns = fragment.columns;
    UNROLL for (int m = 0; m < tile_rows; m++)
      UNROLL for (int n = 0; n < tile_columns; n++)
        sum[m][n] = rows.owns(m) && columns.owns(n) ? c.read(rows[m], columns[n] * ENTRIES_PER_V) : splat<v>(0);
    for (int k = 0; k < K; k++) {
      v right[tile_columns];
      UNROLL for (int n = 0; n < tile_columns; n++) right[n] = hold(b.read(k, columns[n] * ENTRIES_PER_V));
      UNROLL for (int m = 0; m < tile_rows; m++) {
        const v left = hold(a.broadcast(rows[m], k));
        UNROLL for (int n = 0; n < tile_columns; n++) sum[m][n] = fma_(left, right[n], sum[m][n]);
      }
    }
    epilogue(fragment);
  }
  BARRIER
}
#endif
#endif
