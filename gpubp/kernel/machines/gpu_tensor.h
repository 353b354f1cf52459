// Of gpu_sums.h, where TF32 is not 0: the product on tensor cores. A warp has a tile, of blocks of 16 x 8 sums, and
// multiplies 8 of k at once (mma.sync m16n8k8): operands are rounded to tf32, which has 11 digits of a float32's 24,
// their products are exact, and sums are float32. Where TF32 is 3, an operand is the sum of two such numbers, a big and
// a small one, and a product is three: small * big + big * small + big * big, in this order.
//
// A network's bits are its own here too: which of k an mma adds together depends on the layout alone. In what order it
// adds them, and how it rounds on the way, NVIDIA does not say, and architectures differ: so these are not a CPU's
// bits. Where a CPU plays the GPU, tests/play.h adds in the order of k, and rounds each sum to the nearest.
#pragma once
constexpr int WARP = 32, MMA_DEPTH = 8;
static_assert(sizeof(real) == 4 && ENTRIES_PER_V == 2 && THREADS % WARP == 0, "no such layout");
#define LANE (RANK % WARP)  // of a warp: the number of its thread

// x rounded to the nearest tf32, of two equally near the larger one, in the digits that an mma reads: it ignores the
// last 13. One instruction on sm_90, where cvt.rna.tf32 is two. The larger of both is a NaN that x is: bits would pass
// from the last NaN to -0.
FN uint32_t to_tf32(real x) {
  const uint32_t bits = reinterpret<uint32_t>(x);
  return max_of((int32_t)(bits + 0x1000), (int32_t)bits);
}
// paired: threads bring neighbours of k, which matters where a CPU plays the GPU: it adds them in order.
#ifdef __CUDACC__
template <bool paired>
FN void mma(v &above, v &below, const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  asm volatile(
      "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
      : "+f"(above.part[0]), "+f"(above.part[1]), "+f"(below.part[0]), "+f"(below.part[1])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
#else
template <bool paired>
FN void mma(v &above, v &below, const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  play_mma(above.part, below.part, a, b, paired);
}
#endif

struct Operand {
  uint32_t big, small;
};
FN Operand operand(real x) {
  const uint32_t big = to_tf32(x);
  return {big, TF32 == 3 ? to_tf32(x - reinterpret<real>(big & ~0x1fffu)) : 0};
}

// Which rows (entries 1) or columns (entries: of a v) of a product a thread has of its warp's tile: of each of `tile`
// eights one row, or one v, as an mma leaves its sums. `size` of them, in v where columns.
//
// Rows are in the order 0, 2, 4, 6, 1, 3, 5, 7: half a warp then accesses 32 bytes of each of four even ones at once,
// which lie in different banks, since PITCH is an odd number of 16 bytes.
template <int size, int tile, int entries>
struct Eights {
  static constexpr int tiles = cdiv(size * entries, 8 * tile);
  static constexpr bool exact = size * entries % (8 * tile) == 0;
  int start;
  INLINE Eights(int item) : start(item * 8 * tile) {}
  INLINE int operator[](int i) const {
    return (start + (entries == 1 ? row() : LANE % 4 * entries) + i * 8) / entries;
  }
  INLINE bool owns(int i) const { return exact || (*this)[i] < size; }
  // Of which row or column this thread brings operands, for the first eight and beyond it; at the end, of the last one.
  INLINE int first() const { return start + (entries == 1 ? row() : LANE / 4); }
  INLINE int beyond_first(int i) const {
    return exact ? i * 8 : min_of(first() + i * 8, size * entries - 1) - first();
  }

 private:
  INLINE static int row() { return LANE / 4 % 4 * 2 + LANE / 16; }
};

// The sums of a product (M, K) @ (K, N), where a tile is a warp's.
template <int M, int N, int K, class Shape = ShapeOf<M, N, K>>
using TilesOfWarps = TilesOfSums<
    Eights<M, Shape::rows, 1>, Eights<Shape::columns_of_v, Shape::columns, ENTRIES_PER_V>, Shape::rows, Shape::columns,
    WARP>;
template <int M, int N, int K, bool A_transposed, bool B_transposed>
struct ProductSums : TilesOfWarps<M, N, K> {
  using Tiles = TilesOfWarps<M, N, K>;
  using Tiles::tile_columns;
  using Tiles::tile_rows;
  static_assert(tile_rows % 2 == 0, "an mma has 16 rows");

  template <int depth = K, class A, class B>  // `depth` of k
  INLINE void add(const A &a, const B &b) {
    this->for_each_tile([&](const auto &tile) {
      add_to<depth>(tile, a.from(tile.rows.first(), first_k()), b.from(first_k(), tile.columns.first()));
    });
  }

 private:
  // A thread brings two of 8 k. Neighbours, if rows of B lie along them: then threads read eight entries of each of
  // four even rows of B, in 32 different banks, and a v of A. Else k and k + 4: eight rows of four entries each.
  static constexpr bool paired = !B_transposed;
  static constexpr int apart = paired ? 1 : 4;
  INLINE static int first_k() { return paired ? LANE % 4 * 2 : LANE % 4; }

  template <int depth, class Tile, class A, class B>
  INLINE static void add_to(const Tile &tile, A a, B b) {
    auto add_some = [&](auto count) {  // 8 of k; of the last ones `count`, and zeros
      Operand left[tile_rows][2], right[tile_columns][2];
      auto has = [&](int half) { return first_k() + half * apart < count.value; };
      UNROLL for (int m = 0; m < tile_rows; m++) {
        const int row = tile.rows.beyond_first(m);
        v both = splat<v>(0);
        if constexpr (paired && !A_transposed) {
          if (has(0)) both = a.read(row, 0);
        } else UNROLL for (int half = 0; half < 2; half++)
          if (has(half)) both.part[half] = a.broadcast(row, half * apart).part[0];
        UNROLL for (int half = 0; half < 2; half++) left[m][half] = operand(has(half) ? both.part[half] : 0);
      }
      UNROLL for (int n = 0; n < tile_columns; n++)
        UNROLL for (int half = 0; half < 2; half++)
          right[n][half] =
              operand(has(half) ? b.broadcast(half * apart, tile.columns.beyond_first(n)).part[0] : 0);
      if constexpr (TF32 == 3) {
        add_products(tile, left, right, &Operand::small, &Operand::big);
        add_products(tile, left, right, &Operand::big, &Operand::small);
      }
      add_products(tile, left, right, &Operand::big, &Operand::big);
      a = a.from(0, MMA_DEPTH), b = b.from(MMA_DEPTH, 0);
    };
    for (int k = 0; k < depth / MMA_DEPTH; k++) add_some(constant<MMA_DEPTH>());
    if constexpr (depth % MMA_DEPTH) add_some(constant<depth % MMA_DEPTH>());
  }
  typedef uint32_t Operand::*Part;
  template <class Tile>
  INLINE static void add_products(
      const Tile &tile, const Operand (&left)[tile_rows][2], const Operand (&right)[tile_columns][2], Part of_left,
      Part of_right) {
    UNROLL for (int m = 0; m < tile_rows; m += 2)
      UNROLL for (int n = 0; n < tile_columns; n++) {
        const Operand(&above)[2] = left[m], (&below)[2] = left[m + 1];
        const uint32_t a[] = {above[0].*of_left, below[0].*of_left, above[1].*of_left, below[1].*of_left};
        const uint32_t b[] = {right[n][0].*of_right, right[n][1].*of_right};
        mma<paired>(tile.sum[m][n], tile.sum[m + 1][n], a, b);
      }
  }
};
