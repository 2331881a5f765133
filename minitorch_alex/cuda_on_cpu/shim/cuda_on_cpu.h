// What a CUDA compiler gives every .cu file without being asked, for g++. Included before the file's own text.
//
//     vector_types.h   float4, dim3, ...
//     intrinsics.h     min, rsqrt, __fmul_rn, __umul64hi, ...
//     barriers.h       __syncthreads, __shared__, printf, assert
//     warps.h          __shfl_sync, __ballot_sync, __syncwarp, ...
//     atomics.h        atomicAdd, ...
//     kernel_table.h   how Python finds the kernels and their parameters
//
// How it works: launch.cpp (a launch, errors, signals), scheduler.cpp (blocks, threads, barriers), fibers.cpp (the
// switch from thread to thread), shared_memory.cpp; checks.cpp and watch.cpp look for mistakes.
//
// What cannot be imitated, so that a kernel which is right here may still be wrong or slow on a GPU:
// - speed: nothing that is measured here means anything there
// - the order in which other threads see writes: here memory is always up to date, and fences do nothing. A kernel that
//   waits in a loop for another thread's write never ends here
// - asynchrony: a launch returns when the kernel has ended; there are no streams
// - a GPU's own rounding: fused multiply-add, flushed denormals, the fast forms of exp and log, TF32, cuBLAS
// - warps that run in step: here a thread runs until it must wait, whatever the others of its warp do
#pragma once

#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CUDA_ON_CPU 1      // for a file that needs a second text here, say in place of inline assembly
#define __CUDA_ARCH__ 800  // as if compiled for an A100

// A function for the GPU or for the host, it is all one here.
#define __global__
#define __device__
#define __host__
#define __constant__
#define __grid_constant__
#define __forceinline__ inline
#define __noinline__ __attribute__((noinline))
#define __align__(bytes) __attribute__((aligned(bytes)))
#define __launch_bounds__(...)

#include "vector_types.h"

// Who am I? The scheduler sets these whenever another thread's turn comes.
extern uint3 threadIdx;
extern uint3 blockIdx;
extern dim3 blockDim;
extern dim3 gridDim;
const int warpSize = 32;

#include "intrinsics.h"
#include "barriers.h"
#include "warps.h"
#include "atomics.h"
#include "kernel_table.h"
