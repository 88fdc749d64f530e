// The LSTM on a CPU: one fused pass over time, forward and backward, without TensorFlow.
//
// A thread takes a tile of the batch through all time steps, so that the recurrent weights, gates
// and states stay in its cache. Weights are packed so that one block of registers holds the four
// gates of a vector of cells for a few sequences: the recurrent product, the input's part and the
// cell's nonlinearities are one loop, and nothing but what the gradient needs goes to memory. On
// the way back the gradients of all weights are accumulated beside the recurrence.
//
// A "panel" is the 4 * VEC columns (input, forget, candidate, output gate) of VEC cells. Sizes that
// are no multiple of VEC are padded with zeros, under which padded cells stay exactly zero.
//
// Results depend on the number of threads (the order in which the threads' sums are added), and on
// nothing else: the same bits come out however the threads are scheduled.

#ifndef T2AUX_KERNELS_CORE_H_
#define T2AUX_KERNELS_CORE_H_

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <new>
#include <numeric>
#include <thread>
#include <vector>

#ifdef __linux__
#include <sched.h>
#endif

#if defined(__AVX512F__) || defined(__AVX__)
#include <immintrin.h>
#endif

namespace t2aux {

// --- Vectors
// --------------------------------------------------------------------------------------

#if defined(__AVX512F__)
constexpr int VEC = 16;
constexpr int BLOCK = 6;  // sequences a block of registers: 24 sums, 4 weights, 1 input
#elif defined(__AVX__)
constexpr int VEC = 8;
constexpr int BLOCK = 3;
#elif defined(__aarch64__)
constexpr int VEC = 4;
constexpr int BLOCK = 6;
#else
constexpr int VEC = 4;
constexpr int BLOCK = 3;
#endif
constexpr int WIDE = 4 * VEC;
// What the backward pass needs of a cell: input, forget, candidate, output gate, and the cell.
constexpr int SAVED = 5 * VEC;

typedef float Vec __attribute__((vector_size(4 * VEC)));
typedef int32_t VecInt __attribute__((vector_size(4 * VEC)));

#define T2AUX_INLINE inline __attribute__((always_inline))

T2AUX_INLINE Vec load(const float* p) {
  Vec v;
  std::memcpy(&v, p, sizeof(v));
  return v;
}

T2AUX_INLINE void store(float* p, Vec v) { std::memcpy(p, &v, sizeof(v)); }

T2AUX_INLINE Vec load_some(const float* p, int count) {
  if (count >= VEC) return load(p);
  Vec v = {};
  std::memcpy(&v, p, sizeof(float) * count);
  return v;
}

T2AUX_INLINE void store_some(float* p, Vec v, int count) {
  if (count >= VEC) return store(p, v);
  std::memcpy(p, &v, sizeof(float) * count);
}

// Past the caches: saved activations are read again only after all of them were written.
T2AUX_INLINE void store_streaming(float* p, Vec v) {
#if defined(__AVX512F__)
  _mm512_stream_ps(p, (__m512)v);
#elif defined(__AVX__)
  _mm256_stream_ps(p, (__m256)v);
#else
  store(p, v);
#endif
}

inline void finish_streaming() {
#if defined(__AVX__)
  _mm_sfence();
#endif
}

T2AUX_INLINE Vec all(float x) { return Vec{} + x; }

// NaN passes through: a comparison with it is false.
T2AUX_INLINE Vec clamp(Vec x, float limit) {
  x = x > limit ? all(limit) : x;
  return x < -limit ? all(-limit) : x;
}

struct Exponential {
  Vec scale;     // 2^n
  Vec fraction;  // e^r - 1, with x = n ln 2 + r
};

// For |x| < 87: n is the nearest integer to x / ln 2, and (e^r - 1 - r) / r^2 a polynomial, fitted
// over |r| < ln 2 / 2 so that the largest relative error of e^r - 1 is least (1.4e-8).
T2AUX_INLINE Exponential exponential(Vec x) {
  const float shift = 12582912.0f;  // 1.5 * 2^23: the sum's last bits are the nearest integer
  Vec shifted = x * 1.44269504f + shift;
  Vec n = shifted - shift;
  Vec r = x - n * 0.693359375f;
  r = r + n * 2.12194440e-4f;
  Vec p = 0.00836657733f + r * 0.00139464391f;
  p = 0.0416662805f + r * p;
  p = 0.166665435f + r * p;
  p = 0.5f + r * p;
  VecInt bits = ((VecInt)shifted << 23) + 0x3f800000;
  return {(Vec)bits, r + r * r * p};
}

// The denominator of the logistic function, 1 + e^-x. Beyond 43 nothing changes in float32, and the
// product of two of them does not overflow.
T2AUX_INLINE Vec sigmoid_denominator(Vec x) {
  Exponential e = exponential(-clamp(x, 43.0f));
  return (1.0f + e.scale) + e.scale * e.fraction;
}

struct Quotient {
  Vec over;
  Vec under;
};

// tanh x = (e^2x - 1) / (e^2x + 1), exact to the last places near 0 too.
T2AUX_INLINE Quotient tanh_quotient(Vec x) {
  Exponential e = exponential(2.0f * clamp(x, 10.0f));
  Vec over = (e.scale - 1.0f) + e.scale * e.fraction;
  return {over, over + 2.0f};
}

T2AUX_INLINE Vec tanh_of(Vec x) {
  Quotient q = tanh_quotient(x);
  return q.over / q.under;
}

// --- Memory
// ---------------------------------------------------------------------------------------

// Aligned floats, not initialised.
class Buffer {
 public:
  Buffer() = default;
  explicit Buffer(int64_t count) {
    size_t bytes = (std::max<int64_t>(count, 1) * sizeof(float) + 63) / 64 * 64;
    data_.reset(static_cast<float*>(std::aligned_alloc(64, bytes)));
    if (!data_) throw std::bad_alloc();
  }
  static Buffer zeros(int64_t count) {
    Buffer b(count);
    std::memset(b.get(), 0, sizeof(float) * count);
    return b;
  }
  float* get() const { return data_.get(); }

 private:
  struct Free {
    void operator()(float* p) const { std::free(p); }
  };
  std::unique_ptr<float, Free> data_;
};

// --- Threads
// --------------------------------------------------------------------------------------

T2AUX_INLINE void pause() {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#endif
}

// Runs work(0) ... work(count - 1), on several threads if it likes, and returns when all are done.
struct Pool {
  int threads = 1;
  std::function<void(int count, const std::function<void(int)>& work)> run;

  // The same for a few long pieces of work: sees to it that every thread has a core of its own.
  void run_apart(int count, const std::function<void(int)>& work) const;
};

// Threads that were woken for the same work should be on different cores. Linux often wakes one on
// the core of the thread that woke it, and leaves it waiting there for up to 10 ms though another
// core is idle: longer than the whole work may take.
class Apart {
 public:
  explicit Apart(int count) : cores_(count) {
    for (auto& core : cores_) core.store(-1, std::memory_order_relaxed);
  }

  // Called by every thread before its work.
  void arrive() {
#ifdef __linux__
    // Once a thread, however many pieces it works on.
    static thread_local int64_t last = -1;
    if (last == id_) return;
    last = id_;
    const int self = arrived_.fetch_add(1);
    const int count = static_cast<int>(cores_.size());
    if (self >= count) return;
    const int core = sched_getcpu();
    // That thread is at work and not running, so it is waiting for this core.
    for (int i = 0; i < self; ++i) {
      if (cores_[i].load() == core) return move_away();
    }
    cores_[self].store(core);
    if (self > 0) return;
    // Those that wait for this core come to run by yielding; they will move away.
    for (int i = 0; i < 200 && arrived_.load() < count; ++i) {
      for (int j = 0; j < 16; ++j) pause();
      if (i % 16 == 15) sched_yield();
    }
#endif
  }

 private:
#ifdef __linux__
  void move_away() {
    cpu_set_t allowed, others;
    if (sched_getaffinity(0, sizeof(allowed), &allowed) != 0) return;
    others = allowed;
    for (auto& core : cores_) {
      if (core.load() >= 0) CPU_CLR(core.load(), &others);
    }
    if (CPU_COUNT(&others) == 0) return;
    if (sched_setaffinity(0, sizeof(others), &others) == 0) {
      sched_setaffinity(0, sizeof(allowed), &allowed);
    }
  }
#endif

  static int64_t next_id() {
    static std::atomic<int64_t> id{0};
    return id.fetch_add(1);
  }

  const int64_t id_ = next_id();
  std::vector<std::atomic<int>> cores_;
  std::atomic<int> arrived_{0};
};

inline void Pool::run_apart(int count, const std::function<void(int)>& work) const {
  if (count == 1) return work(0);
  Apart apart(std::min(count, threads));
  run(count, [&](int i) {
    apart.arrive();
    work(i);
  });
}

// Runs work(slot, phase) for all slots of a phase before any of the next: for batches too small to
// give every thread sequences of its own. A thread takes its own slot, so that its weights stay in
// its cache; a slot whose thread has not come (the pool may be busy) is taken by another. As a
// slot once taken is always being worked on, no thread ever waits for one that has not started. The
// work must not throw.
inline void in_phases(const Pool& pool, int slots, int64_t phases,
                      const std::function<void(int slot, int64_t phase)>& work) {
  if (slots == 1) {
    for (int64_t k = 0; k < phases; ++k) work(0, k);
    return;
  }
  struct alignas(64) Claim {
    std::atomic<int64_t> taken{-1};
  };
  std::vector<Claim> claims(slots);
  std::atomic<int64_t> done{0};
  pool.run_apart(slots, [&](int self) {
    std::vector<char> absent(slots, 0);
    for (int64_t k = done.load(std::memory_order_acquire) / slots; k < phases; ++k) {
      for (int j = 0; j < slots; ++j) {
        int slot = (self + j) % slots;
        auto& taken = claims[slot].taken;
        if (j > 0 && !absent[slot]) {
          for (int i = 0; i < 4096 && taken.load(std::memory_order_relaxed) < k; ++i) pause();
        }
        int64_t before = k - 1;
        if (taken.compare_exchange_strong(before, k, std::memory_order_acq_rel)) {
          work(slot, k);
          done.fetch_add(1, std::memory_order_acq_rel);
          absent[slot] = j > 0;
        } else {
          absent[slot] = 0;
        }
      }
      // A thread at work that lost its core to another gets this one.
      for (int i = 0; done.load(std::memory_order_acquire) < (k + 1) * slots; ++i) {
        if (i < 2048) {
          pause();
        } else {
          std::this_thread::yield();
        }
      }
    }
  });
}

struct Range {
  int begin;
  int end;
};

// Part i of n nearly equal parts of 0 ... count - 1.
inline Range part(int count, int i, int n) {
  return {static_cast<int>(static_cast<int64_t>(count) * i / n),
          static_cast<int>(static_cast<int64_t>(count) * (i + 1) / n)};
}

// How a batch is divided: into tiles of sequences, or, in phases, into panels.
struct Plan {
  int tiles;
  int slots;  // 1: by tiles
};

inline Plan make_plan(int batch, int panels, int threads) {
  constexpr int kRows = 64;
  if (batch < threads && panels > 1) return {1, std::min(threads, panels)};
  int tiles = std::min(batch, threads);
  int each = (batch + tiles - 1) / tiles;
  return {tiles * ((each + kRows - 1) / kRows), 1};
}

// --- The product
// ----------------------------------------------------------------------------------

// sums[i][j] += sum over k of a[i * row + k * step] * b[k * WIDE + j * VEC ...].
template <int R>
T2AUX_INLINE void multiply(Vec (&sums)[R][4], const float* a, int64_t row, int64_t step,
                           const float* b, int depth) {
  // So few sums would wait for each other: two sets of them, added at the end.
  constexpr int kSets = R <= 2 ? 2 : 1;
  Vec more[kSets == 2 ? R : 1][4] = {};
  int k = 0;
  if (kSets == 2) {
    for (; k + 2 <= depth; k += 2, b += 2 * WIDE, a += 2 * step) {
#pragma GCC unroll 8
      for (int i = 0; i < R; ++i) {
        Vec first = all(a[i * row]), second = all(a[i * row + step]);
#pragma GCC unroll 4
        for (int j = 0; j < 4; ++j) {
          sums[i][j] += first * load(b + j * VEC);
          more[i < (kSets == 2 ? R : 1) ? i : 0][j] += second * load(b + WIDE + j * VEC);
        }
      }
    }
  }
  for (; k < depth; ++k, b += WIDE, a += step) {
    Vec w[4];
#pragma GCC unroll 4
    for (int j = 0; j < 4; ++j) w[j] = load(b + j * VEC);
#pragma GCC unroll 8
    for (int i = 0; i < R; ++i) {
      Vec x = all(a[i * row]);
#pragma GCC unroll 4
      for (int j = 0; j < 4; ++j) sums[i][j] += x * w[j];
    }
  }
  if (kSets == 2) {
#pragma GCC unroll 8
    for (int i = 0; i < R; ++i) {
#pragma GCC unroll 4
      for (int j = 0; j < 4; ++j) sums[i][j] += more[i < (kSets == 2 ? R : 1) ? i : 0][j];
    }
  }
}

// Calls f with a compile-time number of rows for each block of rows of 0 ... count - 1.
template <class F>
T2AUX_INLINE void in_blocks(int count, F f) {
  int r = 0;
  for (; r + BLOCK <= count; r += BLOCK) f(std::integral_constant<int, BLOCK>(), r);
  switch (count - r) {
    case 5:
      f(std::integral_constant<int, 5>(), r);
      break;
    case 4:
      f(std::integral_constant<int, 4>(), r);
      break;
    case 3:
      f(std::integral_constant<int, 3>(), r);
      break;
    case 2:
      f(std::integral_constant<int, 2>(), r);
      break;
    case 1:
      f(std::integral_constant<int, 1>(), r);
      break;
    default:
      break;
  }
}

// --- Packed weights
// -------------------------------------------------------------------------------

// One layer's weights, in panels.
struct Cells {
  int hidden = 0;  // H
  int inputs = 0;  // D; 0 where the input is ids
  int panels = 0;  // P
  int padded = 0;  // P * VEC
  Buffer kernel;   // [P][H + D][WIDE]
  Buffer bias;     // [P][WIDE]
  Buffer table;    // [V][P][WIDE], for ids
};

inline int panels_of(int hidden) { return (hidden + VEC - 1) / VEC; }

// A row [4H] into the panel's [WIDE].
inline void pack_row(const float* row, int hidden, int panel, float* to) {
  int unit = panel * VEC, count = std::min(VEC, hidden - unit);
  for (int g = 0; g < 4; ++g) store(to + g * VEC, load_some(row + g * hidden + unit, count));
}

inline void unpack_row(const float* from, int hidden, int panel, float* row) {
  int unit = panel * VEC, count = std::min(VEC, hidden - unit);
  for (int g = 0; g < 4; ++g) store_some(row + g * hidden + unit, load(from + g * VEC), count);
}

// input: [D, 4H], or a table [V, 4H] where `vocabulary` is not 0; bias [4H] or null; recurrent
// [H, 4H].
inline Cells pack(const float* input, int inputs, int vocabulary, const float* bias,
                  const float* recurrent, int hidden, const Pool& pool) {
  Cells cells;
  cells.hidden = hidden;
  cells.inputs = vocabulary ? 0 : inputs;
  cells.panels = panels_of(hidden);
  cells.padded = cells.panels * VEC;
  int depth = hidden + cells.inputs, P = cells.panels;
  cells.kernel = Buffer(static_cast<int64_t>(P) * depth * WIDE);
  cells.bias = Buffer::zeros(static_cast<int64_t>(P) * WIDE);
  cells.table = Buffer(static_cast<int64_t>(vocabulary) * P * WIDE);
  pool.run(P, [&](int p) {
    float* to = cells.kernel.get() + static_cast<int64_t>(p) * depth * WIDE;
    for (int k = 0; k < depth; ++k) {
      const float* row = k < hidden ? recurrent + static_cast<int64_t>(k) * 4 * hidden
                                    : input + static_cast<int64_t>(k - hidden) * 4 * hidden;
      pack_row(row, hidden, p, to + static_cast<int64_t>(k) * WIDE);
    }
    if (bias) pack_row(bias, hidden, p, cells.bias.get() + static_cast<int64_t>(p) * WIDE);
    for (int v = 0; v < vocabulary; ++v) {
      pack_row(input + static_cast<int64_t>(v) * 4 * hidden, hidden, p,
               cells.table.get() + (static_cast<int64_t>(v) * P + p) * WIDE);
    }
  });
  return cells;
}

}  // namespace t2aux

#endif  // T2AUX_KERNELS_CORE_H_
