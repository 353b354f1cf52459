// What a machine is: where a LAYOUT has the numbers of networks, and what a file of machines/ defines for it, in which
// all other files are written.
//
//   LAYOUT        a lane is    v                 entry       a network has          weights    slots      gradients
//   CPU_NETWORKS  a network    NETWORKS numbers  a v         one thread             memory     memory     of a tile
//   CPU_OUTPUTS   an output    VECTOR numbers    one number  one thread             memory     memory     of a tile
//   CPU_TEAM      an output    VECTOR numbers    one number  all threads of a call  memory     memory     of a tile
//   GPU_THREAD    the network  one number        a v         one thread             registers  registers  of a tile
//   GPU_BLOCK     the network  one number        a v         a block or part of it  shared     either     of a tile
//   GPU_WIDE      an output    16 bytes          one number  a block or part of it  shared     either     of a step
//   GPU_STREAMED  an output    16 bytes          one number  a block                global     global     of a tile
//
// weights: where they are between two steps: a CPU's memory, a thread's registers, a block's shared memory, or global
// memory, of which a block copies strips to shared memory. slots: those of the optimizer; either: in shared memory or,
// with SLOTS_APART, in global memory. gradients: those that a thread has in registers at once. Those of a tile of a
// product update their parameters, or are added to memory until the last chunk of the batch, before the next tile
// begins; those of a step stay until its end (gradients.h).
//
//   v                  what is computed with: an operation on v is done in all its lanes at once
//   entry              an element of the arrays in Memory: of a matrix, entry (i, j)
//   per_network        one number of each network, such as its loss, of which every thread has a copy; as_v: of it, a v
//   ENTRIES_PER_V      entries that make a v; NETWORKS: those of a group; DOUBLE_LANES: of them, in a float64 register
//   read, write        the v that begins at entry j; broadcast: entry j for all lanes (if an entry is a v: the same)
//   PARALLEL_FOR       the independent items of a phase, divided among the threads that share a network, if it has some
//   BARRIER            the end of a phase, where those threads wait for each other
//   product            the matrix product (product.h), in tiles that suit the machine; it ends with a BARRIER
//   copy_in, copy_out  rows of Job into Memory, and back; gather_samples, where GATHER: samples into Memory.x and y
//   launch             of GPUs: which thread trains which network
#pragma once
#define CPU_NETWORKS 0
#define CPU_OUTPUTS 1
#define CPU_TEAM 2
#define GPU_THREAD 3
#define GPU_BLOCK 4
#define GPU_WIDE 5
#define GPU_STREAMED 6

#define ON_GPU (LAYOUT >= GPU_THREAD)
#define TEAM (LAYOUT == CPU_TEAM || LAYOUT >= GPU_BLOCK)  // several threads share a network
#define LANES_ARE_OUTPUTS (LAYOUT == CPU_OUTPUTS || LAYOUT == CPU_TEAM || LAYOUT >= GPU_WIDE)
#define STREAMED (LAYOUT == GPU_STREAMED)

static_assert(LAYOUT >= GPU_WIDE ? REGISTERS_PER_V > 1
                                 : REGISTERS_PER_V == 1 || (REGISTERS_PER_V == 3 && LAYOUT == CPU_NETWORKS),
              "no such layout");
static_assert(VECTOR == 1 || !ON_GPU, "no such layout");
static_assert(!SLOTS_APART || LAYOUT == GPU_BLOCK || LAYOUT == GPU_WIDE, "no such layout");
#if LAYOUT == CPU_NETWORKS
#include "machines/cpu_networks.h"
#elif LAYOUT <= CPU_TEAM
#include "machines/cpu_outputs.h"
#elif LAYOUT == GPU_THREAD
#include "machines/gpu_thread.h"
#else
#include "machines/gpu_block.h"
#endif

// What a compiler checks of this list; nothing calls it.
FN void machine_defines(entry *p, const per_network &x) {
  static_assert(sizeof(v) == ENTRIES_PER_V * sizeof(entry) && sizeof(per_network) == NETWORKS * sizeof(real));
  static_assert(NETWORKS % DOUBLE_LANES == 0 && (NETWORKS == 1 || ENTRIES_PER_V == 1));
  const v sum = read(p, 0) + broadcast(p, 0) + as_v(x);
  PARALLEL_FOR(item, 2) { write(p, item * ENTRIES_PER_V, sum); }
  BARRIER
}
