// What a machine is: where a LAYOUT has the numbers of networks, and what a file of machines/ defines for it, in which
// all other files are written.
//
//   LAYOUT        a lane is  v's numbers  entry     a network has    weights    slots      gradients     updated
//   CPU_NETWORKS  a network  NETWORKS     a v       one thread       memory     memory     tile by tile  in backward()
//   CPU_OUTPUTS   an output  VECTOR       a number  one thread       memory     memory     tile by tile  in backward()
//   CPU_TEAM      an output  VECTOR       a number  all threads      memory     memory     tile by tile  in backward()
//   GPU_THREAD    -          1            a v       one thread       registers  registers  tile by tile  in backward()
//   GPU_BLOCK     -          1            a v       a block or part  shared     either     tile by tile  in backward()
//   GPU_WIDE      an output  16 bytes     a number  a block or part  shared     either     held          after it
//   GPU_STREAMED  an output  16 bytes     a number  a block          global     global     tile by tile  in backward()
//
// lane: an element of v, of which each thread has its own (not a lane of a warp: that is a thread here); -: v is one
// number. 16 bytes: or 8 where products are on tensor cores (gpu_tensor.h), whose sums come in pairs. weights: where
// they are between two steps, and with them outs, deltas and the sums of earlier chunks: in a CPU's memory, a thread's
// registers, a block's shared memory, or global memory (Memory.far, a padded copy of a row of Job), from which a block
// copies strips to shared memory. slots: those of the optimizer; either: in shared memory or, with SLOTS_APART, in
// global memory. gradients: those that a thread has in registers at once. Tile by tile: before the next tile begins,
// those of a product's tile update their parameters or, until the last chunk of the batch, are added to memory. Held:
// those of all layers stay until the end of the step (gradients.h). updated: when weights are; LAYERWISE always in
// backward(), with HAS_CLIP_NORM always after it. A GENERAL kernel (sizes.h) is of CPU_OUTPUTS.
//
//   v                  what is computed with: an operation on v is done in all its lanes at once
//   entry              an element of the arrays in Memory: of a matrix, entry (i, j)
//   per_network        one number of each network, such as its loss, of which every thread has a copy; as_v: of it, a v
//   ENTRIES_PER_V      entries that make a v; NETWORKS: those of a group; DOUBLE_LANES: of them, in a float64 register
//   read, write        the v that begins at entry j; broadcast: entry j for all lanes (if an entry is a v: the same)
//   PARALLEL_FOR       the independent items of a phase, divided among the threads that share a network, if it has some
//   GROUP_FOR          the same, of what is in Group: on a GPU whose networks have several blocks, each has a Group
//   BARRIER            the end of a phase, where those threads wait for each other
//   product            the matrix product (product.h), in tiles that suit the machine; it ends with a BARRIER
//   copy_in, copy_out  rows of Job into Memory, and back; gather_samples, where GATHER: samples into Memory.x and y
//   launch             of GPUs: which thread trains which network
#pragma once
#define CPU_NETWORKS 0  // for narrow layers and small batches
#define CPU_OUTPUTS 1   // for wide layers and large batches
#define CPU_TEAM 2      // for the same, and fewer networks than threads
#define GPU_THREAD 3    // for some 30 parameters, and one sample a step
#define GPU_BLOCK 4     // for what fits in shared memory
#define GPU_WIDE 5      // for float32 where that is faster, and registers hold the gradients of training
#define GPU_STREAMED 6  // for what does not fit there, or is faster so

#define ON_GPU (LAYOUT >= GPU_THREAD)
#define TEAM (LAYOUT == CPU_TEAM || LAYOUT >= GPU_BLOCK)  // several threads share a network
#define LANES_ARE_OUTPUTS (LAYOUT == CPU_OUTPUTS || LAYOUT == CPU_TEAM || LAYOUT >= GPU_WIDE)
#define STREAMED (LAYOUT == GPU_STREAMED)

static_assert(LAYOUT >= GPU_WIDE ? REGISTERS_PER_V > 1
                                 : REGISTERS_PER_V == 1 || (REGISTERS_PER_V == 3 && LAYOUT == CPU_NETWORKS),
              "no such layout");
static_assert(VECTOR == 1 || !ON_GPU, "no such layout");
static_assert(!SLOTS_APART || LAYOUT == GPU_BLOCK || LAYOUT == GPU_WIDE, "no such layout");
#if ON_GPU && defined(__CUDACC__)
alignas(64) extern __shared__ double shared[];
#endif
#include "sizes.h"
#if LAYOUT == CPU_NETWORKS
#include "machines/cpu_networks.h"
#elif LAYOUT <= CPU_TEAM
#include "machines/cpu_outputs.h"
#elif LAYOUT == GPU_THREAD
#include "machines/gpu_thread.h"
#else
#include "machines/gpu_block.h"
#endif
#ifndef GROUP_FOR
#define GROUP_FOR PARALLEL_FOR
#define BLOCK_OF_TEAM 0
#endif
