// The LSTM on a CPU: one fused pass over time, forward and backward, without TensorFlow.
//
// A thread takes a tile of the batch through all time steps, so that the recurrent weights, gates
// and states stay in its cache. Weights are packed so that one block of registers holds the four
// gates of a vector of cells for a few sequences: the recurrent product, the input's part and the
// cell's nonlinearities are one loop, and nothing but what the gradient needs goes to memory. On
// the way back the gradients of all weights are accumulated beside the recurrence.
//
// A "panel" is the 4 * VEC columns (input, forget, candidate, output gate) of VEC cells. Sizes that
// are not a multiple of VEC are padded with zeros, under which padded cells stay exactly zero.
//
// Results depend on the number of threads (the order in which the threads' sums are added), and on
// nothing else: the same bits come out however the threads are scheduled.

#ifndef T2AUX_KERNELS_CORE_H_
#define T2AUX_KERNELS_CORE_H_

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <new>
#include <type_traits>

#include "amx.h"
#include "operands.h"
#include "threads.h"
#include "vectors.h"

namespace t2aux {

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

// --- The product
// ----------------------------------------------------------------------------------

// sums[i][j] += sum over k < depth of a[i * row + k * step] * b[k * WIDE + j * VEC ...]; each k is
// a word of operands.
template <class Operand, int R>
T2AUX_INLINE void multiply(Vec (&sums)[R][4], const float* a, int64_t row, int64_t step,
                           const float* b, int depth) {
#if defined(T2AUX_AMX)
  if constexpr (Operand::kPerWord == 2 && R == BLOCK) {
    if (step == 1 && amx::enabled()) {
      const int done = amx::multiply(sums, a, row, b, depth);
      a += done;
      b += static_cast<int64_t>(done) * WIDE;
      depth -= done;
    }
  }
#endif
  // So few sums would wait for each other: two sets of them, added at the end.
  constexpr int kSets = R <= 2 ? 2 : 1;
  Vec more[kSets == 2 ? R : 1][4] = {};
  int k = 0;
  if (kSets == 2) {
    for (; k + 2 <= depth; k += 2, b += 2 * WIDE, a += 2 * step) {
#pragma GCC unroll 8
      for (int i = 0; i < R; ++i) {
        Vec first = broadcast(a + i * row), second = broadcast(a + i * row + step);
        Vec(&others)[4] = more[i < (kSets == 2 ? R : 1) ? i : 0];
#pragma GCC unroll 4
        for (int j = 0; j < 4; ++j) {
          sums[i][j] = Operand::add_product(sums[i][j], first, load(b + j * VEC));
          others[j] = Operand::add_product(others[j], second, load(b + WIDE + j * VEC));
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
      Vec x = broadcast(a + i * row);
#pragma GCC unroll 4
      for (int j = 0; j < 4; ++j) sums[i][j] = Operand::add_product(sums[i][j], x, w[j]);
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

// So few inputs are multiplied in float32 in any case: it costs next to nothing, and keeps the
// values of pixels and sensors exact.
constexpr int kFewInputs = 4;

template <class Operand>
constexpr int input_words(int inputs) {
  return inputs <= kFewInputs ? inputs : words<Operand>(inputs);
}

// One layer's weights, in panels. A kernel's rows are words of operands, h's then x's.
struct Cells {
  int hidden = 0;  // H
  int inputs = 0;  // D; 0 where the input is ids
  int panels = 0;  // P
  int padded = 0;  // P * VEC
  int h_words = 0;
  int x_words = 0;
  Buffer kernel;  // [P][h_words + x_words][WIDE]
  Buffer bias;    // [P][WIDE]
  Buffer table;   // [V][P][WIDE], for ids
};

inline int panels_of(int hidden) { return (hidden + VEC - 1) / VEC; }

// A row [4H] into the panel's [WIDE], as term k of the columns.
template <class Operand>
inline void pack_row(const float* row, int hidden, int panel, int k, float* to) {
  int unit = panel * VEC, count = std::min(VEC, hidden - unit);
  for (int g = 0; g < 4; ++g) {
    Operand::put_term(to, WIDE, k, g * VEC, load_some(row + g * hidden + unit, count));
  }
}

inline void unpack_row(const float* from, int hidden, int panel, float* row) {
  int unit = panel * VEC, count = std::min(VEC, hidden - unit);
  for (int g = 0; g < 4; ++g) store_some(row + g * hidden + unit, load(from + g * VEC), count);
}

// input: [D, 4H], or a table [V, 4H] where `vocabulary` is not 0; bias [4H] or null; recurrent
// [H, 4H].
template <class Operand>
Cells pack(const float* input, int inputs, int vocabulary, const float* bias,
           const float* recurrent, int hidden, const Pool& pool) {
  Cells cells;
  cells.hidden = hidden;
  cells.inputs = vocabulary ? 0 : inputs;
  cells.panels = panels_of(hidden);
  cells.padded = cells.panels * VEC;
  cells.h_words = words<Operand>(hidden);
  cells.x_words = input_words<Operand>(cells.inputs);
  int depth = cells.h_words + cells.x_words, P = cells.panels;
  cells.kernel = Buffer(static_cast<int64_t>(P) * depth * WIDE);
  cells.bias = Buffer::zeros(static_cast<int64_t>(P) * WIDE);
  cells.table = Buffer(static_cast<int64_t>(vocabulary) * P * WIDE);
  pool.run(P, [&](int p) {
    float* to = cells.kernel.get() + static_cast<int64_t>(p) * depth * WIDE;
    const int64_t row = 4 * static_cast<int64_t>(hidden);
    for (int k = 0; k < hidden; ++k) pack_row<Operand>(recurrent + k * row, hidden, p, k, to);
    to += static_cast<int64_t>(cells.h_words) * WIDE;
    for (int k = 0; k < cells.inputs; ++k) {
      if (cells.inputs <= kFewInputs) {
        pack_row<Float32>(input + k * row, hidden, p, k, to);
      } else {
        pack_row<Operand>(input + k * row, hidden, p, k, to);
      }
    }
    float* packed_bias = cells.bias.get() + static_cast<int64_t>(p) * WIDE;
    if (bias) pack_row<Float32>(bias, hidden, p, 0, packed_bias);
    for (int v = 0; v < vocabulary; ++v) {
      pack_row<Float32>(input + v * row, hidden, p, 0,
                        cells.table.get() + (static_cast<int64_t>(v) * P + p) * WIDE);
    }
  });
  return cells;
}

}  // namespace t2aux

#endif  // T2AUX_KERNELS_CORE_H_
