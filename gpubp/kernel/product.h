// The one product: C(m, n) = sum over k, in order, of A(m, k) B(k, n), then epilogue(m, n, sum).
//
// Tiles of accumulators are the independent items; their shape is the one with the least cost (machine.h).
#pragma once
#include "memory.h"

struct Shape {
  int rows, cols;
};
constexpr Shape tile_for(int m, int n, int k) {
  const bool far = WIDE && m * k * sizeof(real) > 32768;  // A does not fit L1: more rows, fewer reads of it
  Shape best = {1, 1};
  long cheapest = -1;
  for (int rows = 1; rows <= least(m, MOST_ROWS); rows++)
    for (int cols = 1; cols <= least(n, MOST_COLS) && rows * cols <= ACCUMULATORS; cols++) {
      long cost = tile_cost((long)cdiv(m, rows) * cdiv(n, cols), rows, cols);
      bool better = far ? rows > best.rows : rows * cols > best.rows * best.cols;
      if (cheapest < 0 || cost < cheapest || (cost == cheapest && better)) best = {rows, cols}, cheapest = cost;
    }
  return best;
}

template <int M, int N, int K, class A_, class B_, class Start, class Epilogue>
FN void product(A_ A, B_ B, Start start, Epilogue epilogue) {
  constexpr int columns = pad(N) / NL;
  constexpr Shape shape = tile_for(M, columns, K);
  constexpr int tm = shape.rows, tn = shape.cols, down = cdiv(M, tm), across = cdiv(columns, tn);
  EACH(t, down * across) {
    int m1 = BEGIN(t % down, tm), n1 = BEGIN(t / down, tn), m0 = FIRST(m1, tm, M), n0 = FIRST(n1, tn, columns);
    auto mine = [&](int m, int n) { return OWNS(m0, m1, m, tm, M) && OWNS(n0, n1, n, tn, columns); };
    v sum[tm][tn];
    UNROLL for (int m = 0; m < tm; m++)
      UNROLL for (int n = 0; n < tn; n++)
        sum[m][n] = mine(m, n) ? start(PLACE(m0, m, tm, M), PLACE(n0, n, tn, columns) * NL) : all<v>(0);
    for (int k = 0; k < K; k++) {
      v b[tn];
      UNROLL for (int n = 0; n < tn; n++) b[n] = hold(B(k, PLACE(n0, n, tn, columns) * NL));
      UNROLL for (int m = 0; m < tm; m++) {
        v a = hold(A(PLACE(m0, m, tm, M), k));
        UNROLL for (int n = 0; n < tn; n++) sum[m][n] = fma_(a, b[n], sum[m][n]);
      }
    }
    UNROLL for (int m = 0; m < tm; m++)
      UNROLL for (int n = 0; n < tn; n++)
        if (mine(m, n)) epilogue(PLACE(m0, m, tm, M), PLACE(n0, n, tn, columns) * NL, sum[m][n]);
  }
  BARRIER
}
FN v zero(int, int) { return all<v>(0); }
