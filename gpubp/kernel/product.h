// The one product: what C(m, n) holds + A(m, k) B(k, n), k in order, goes to the epilogue.
//
// Operands are views: they say where element (i, j) of a matrix is. Tiles of sums are the independent items; their
// shape is the one of least cost (TILES: chosen by engines/layout.py, listed by engines/plan.py). The epilogue takes a
// tile's fragment. Another product (wider loads, tensor cores) is written in the file of its machine, and this plain
// one stays as its twin.
#pragma once

constexpr int pad(int width) { return cdiv(width, NL) * NL; }

// ---- operands: `element` is (i, j) for all lanes, of A; `lanes` is (i, j), (i, j + 1), ... as lanes, of B and C ----

template <int pitch>
struct Matrix {  // rows lie `pitch` elements apart
  const s *p;
  INLINE v element(int i, int j) const { return get(p, i * pitch + j); }
  INLINE v lanes(int i, int j) const { return read(p, i * pitch + j); }
};
template <class View>
struct Turned {  // rows are columns
  View view;
  INLINE v element(int i, int j) const { return view.element(j, i); }
  INLINE v lanes(int i, int j) const {
    static_assert(sizeof(View) && NL == 1, "neighbours lie a row apart: turn() the matrix");
    return view.lanes(j, i);
  }
};
template <class View>
FN Turned<View> turned(const View &view) {
  return {view};
}
template <int value>
struct Constant {
  INLINE v element(int, int) const { return all<v>(value); }
  INLINE v lanes(int, int) const { return all<v>(value); }
};
typedef Constant<0> Zeros;
typedef Constant<1> Ones;

// ---- tiles: `each` of `size` rows or columns, the `item`th of them ----

// Neighbours; a last item that would stick out is moved back, and owns only what no other does.
template <int size, int each>
struct Neighbours {
  int begin, first;
  INLINE Neighbours(int item) : begin(item * each), first(least(begin, size - each)) {}
  INLINE int operator[](int i) const { return first + i; }
  INLINE bool owns(int i) const { return size % each == 0 || first + i >= begin; }
};
// As far apart as there are items: neighbouring threads have neighbours, which lie in different banks of shared memory.
// Beyond the last it reads the last, and owns nothing.
template <int size, int each>
struct Strided {
  static constexpr int items = cdiv(size, each);
  int item;
  INLINE Strided(int item) : item(item) {}
  INLINE int operator[](int i) const {
    return size % each == 0 ? item + i * items : least(item + i * items, size - 1);
  }
  INLINE bool owns(int i) const { return size % each == 0 || item + i * items < size; }
};

// What a thread has of a product: the sums of a tile.
template <class Rows, class Columns, int tm, int tn>
struct Fragment {
  Rows rows;
  Columns columns;
  v (&sum)[tm][tn];
  template <class F>
  INLINE void each(const F &f) const {  // f(row, column, sum)
    UNROLL for (int m = 0; m < tm; m++)
      UNROLL for (int n = 0; n < tn; n++)
        if (rows.owns(m) && columns.owns(n)) f(rows[m], columns[n] * NL, sum[m][n]);
  }
};
template <class F>
struct Each {  // the epilogue of one number after the other
  const F &f;
  template <class Fragment>
  INLINE void operator()(const Fragment &fragment) const {
    fragment.each(f);
  }
};
template <class F>
FN Each<F> each(const F &f) {
  return {f};
}

constexpr int tile_of(int m, int n, int k) {
  for (int at = 0; at < (int)(sizeof(TILES) / sizeof(TILES[0])); at++)
    if (TILES[at].m == m && TILES[at].n == n && TILES[at].k == k) return at;
  return -1;
}

template <template <int, int> class Span, int M, int N, int K, class A, class B, class C, class Epilogue>
FN void plain_product(const A &a, const B &b, const C &c, const Epilogue &epilogue) {
  constexpr int columns = pad(N) / NL, shape = tile_of(M, columns, K);
  static_assert(shape >= 0, "engines/plan.py has no tile for this product");
  constexpr int tm = TILES[shape].rows, tn = TILES[shape].cols, down = cdiv(M, tm), across = cdiv(columns, tn);
  EACH(t, down * across) {
    v sum[tm][tn];
    Fragment<Span<M, tm>, Span<columns, tn>, tm, tn> fragment = {t % down, t / down, sum};
    const auto &rows = fragment.rows;
    const auto &cols = fragment.columns;
    UNROLL for (int m = 0; m < tm; m++)
      UNROLL for (int n = 0; n < tn; n++)
        sum[m][n] = rows.owns(m) && cols.owns(n) ? c.lanes(rows[m], cols[n] * NL) : all<v>(0);
    for (int k = 0; k < K; k++) {
      v right[tn];
      UNROLL for (int n = 0; n < tn; n++) right[n] = hold(b.lanes(k, cols[n] * NL));
      UNROLL for (int m = 0; m < tm; m++) {
        const v left = hold(a.element(rows[m], k));
        UNROLL for (int n = 0; n < tn; n++) sum[m][n] = fma_(left, right[n], sum[m][n]);
      }
    }
    epilogue(fragment);
  }
  BARRIER
}
